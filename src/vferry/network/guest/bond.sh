# shellcheck shell=sh disable=SC2154,SC2086
# What the scripts for a guest with its own bond share.

# The bond takes a slave only once its own monitor (miimon) has seen the link.
activate() {
  tries=0
  until [ "$(cat "$sys/active_slave")" = "$1" ] || { echo "$1" > "$sys/active_slave"; } 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -gt 100 ] && { echo "$bond does not take $1 as its active slave" >&2; exit 7; }
    sleep 0.1
  done
}
bond_of() { basename "$(readlink "/sys/class/net/$1/master")" 2>/dev/null; }
