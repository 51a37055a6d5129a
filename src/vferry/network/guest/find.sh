# shellcheck shell=sh disable=SC2034,SC2154,SC2086
# Finds the two NICs of $mac: `standby` is the one on virtio, `vf` the other. A VF that has just been plugged has a
# MAC of its own making until it is given the guest's: it is then the newest NIC with no address and no master.

find_nics() {
  standby='' vf='' candidate='' newest=-1
  for dir in /sys/class/net/*; do
    [ -e "$dir/device/driver" ] || continue
    nic=${dir##*/} address=$(cat "$dir/address") index=$(cat "$dir/ifindex")
    case $(readlink "$dir/device/driver") in
      */virtio_net) if [ "$address" = "$mac" ]; then standby=$nic; fi ;;
      *) if [ "$address" = "$mac" ]; then vf=$nic
         elif [ "$index" -gt "$newest" ] && is_new "$nic"; then candidate=$nic newest=$index; fi ;;
    esac
  done
  vf=${vf:-$candidate}
}
is_new() {
  [ "$(cat "/sys/class/net/$1/ifalias" 2>/dev/null)" = "$key" ] && return 0
  ! has_addresses "$1" && [ ! -e "/sys/class/net/$1/master" ]
}
has_addresses() { [ -n "$(ip -o address show dev "$1" scope global 2>/dev/null)" ]; }
await() {
  tries=0
  until find_nics; eval "[ -n \"\$$1\" ]"; do
    tries=$((tries + 1))
    [ $tries -gt 100 ] && { echo "no $1 NIC for $mac has appeared in the guest" >&2; exit 3; }
    sleep 0.1
  done
}
carrier() {
  tries=0
  until [ "$(cat "/sys/class/net/$1/carrier" 2>/dev/null)" = 1 ]; do
    tries=$((tries + 1))
    [ $tries -gt 100 ] && { echo "$1 has no carrier" >&2; exit 4; }
    sleep 0.05
  done
}
# routes NIC FAMILY: its routes as `ip route replace` takes them, less the ones that the kernel keeps by itself
routes() {
  ip "-$2" route show dev "$1" |
    sed '/^fe80::/d; /^multicast/d; /^ff00::/d; s/ linkdown//; s/ dead//; s/\(expires [0-9]*\)sec/\1/'
}
