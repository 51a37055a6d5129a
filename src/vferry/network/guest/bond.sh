# shellcheck shell=sh disable=SC2154,SC2086
# What the scripts for a guest with its own bond share.

# The bond takes a slave only once its own monitor (miimon) has seen the link. A VF that its PF answered too late has
# none until it is opened anew; nothing goes over it yet.
activate() {
  tries=0
  until [ "$(cat "$sys/active_slave")" = "$1" ] || { echo "$1" > "$sys/active_slave"; } 2>/dev/null; do
    tries=$((tries + 1))
    line "/sys/class/net/$1/carrier"
    if [ $tries = 40 ] && [ "$line" != 1 ]; then ip link set dev "$1" down; ip link set dev "$1" up; fi
    if [ $tries -gt 120 ]; then
      line "/sys/class/net/$1/bonding_slave/mii_status"; seen=$line
      line "/sys/class/net/$1/carrier"
      echo "$bond does not take $1 as its active slave (seen ${seen:-nowhere}, carrier ${line:-unknown})" >&2
      exit 7
    fi
    sleep 0.1
  done
}
# A bond may take a slave the moment that it is enslaved, with its link up and its queues not started yet (the kernel's
# linkwatch waits for the same lock): what it sends is lost until then. So it is told to wait, and its own word kept.
be_patient() {
  line "$sys/miimon"; miimon=${line:-0}
  [ "$miimon" -gt 0 ] && [ ! -e "/run/$key.updelay" ] || return 0
  line "$sys/updelay"; echo "${line:-0}" > "/run/$key.updelay"
  echo $(((499 / miimon + 1) * miimon)) > "$sys/updelay"
}
be_as_before() {
  [ -e "/run/$key.updelay" ] || return 0
  cat "/run/$key.updelay" > "$sys/updelay"
  rm "/run/$key.updelay"
}
# A NIC that is up must go down to be enslaved; one that the guest has just enslaved by itself must not.
enslave() {
  tries=0
  until ip link set dev "$1" master "$bond" 2>/dev/null || [ "$(bond_of "$1")" = "$bond" ]; do
    tries=$((tries + 1))
    if [ $tries -gt 20 ]; then ip link set dev "$1" master "$bond"; exit 8; fi
    ip link set dev "$1" down
  done
  ip link set dev "$1" up
  carrier "$1"
}
bond_of() { basename "$(readlink "/sys/class/net/$1/master")" 2>/dev/null; }
