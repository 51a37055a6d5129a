# shellcheck shell=sh disable=SC2154,SC2086
# What the scripts for a guest with its own bond share.

bond_of() { basename "$(readlink "/sys/class/net/$1/master")" 2>/dev/null; }
