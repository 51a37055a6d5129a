# shellcheck shell=sh disable=SC2154,SC2086
# The bond keeps the standby NIC, and waits for its slaves as long as it did before bond-to-standby.sh.

find_nics
bond=$(bond_of "$standby"); sys=/sys/class/net/$bond/bonding
[ -z "$bond" ] || be_as_before
