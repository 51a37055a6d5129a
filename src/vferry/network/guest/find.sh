# shellcheck shell=sh disable=SC2034,SC2154,SC2086
# Finds the two NICs of $mac: `standby` is the one on virtio, `vf` the other. A VF that has just been plugged has a
# MAC of its own making until it is given the guest's: it is then the newest NIC with no address and no master.

# line FILE: its first line, in $line; nothing where it cannot be read. No process is started for that: the guest is busy.
line() {
  line=''
  { read -r line < "$1"; } 2>/dev/null || :
}
find_nics() {
  standby='' vf='' candidate='' newest=-1
  for dir in /sys/class/net/*; do
    [ -e "$dir/device/driver" ] || continue
    nic=${dir##*/}
    line "$dir/address"; address=$line
    line "$dir/ifindex"; index=$line
    case $(readlink "$dir/device/driver") in
      */virtio_net) if [ "$address" = "$mac" ]; then standby=$nic; fi ;;
      *) if [ "$address" = "$mac" ]; then vf=$nic
         elif [ "$index" -gt "$newest" ] && is_new "$nic"; then candidate=$nic newest=$index; fi ;;
    esac
  done
  vf=${vf:-$candidate}
}
is_new() {
  line "/sys/class/net/$1/ifalias"
  [ "$line" = "$key" ] && return 0
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
  # It may be about to get another name.
  if command -v udevadm > /dev/null; then udevadm settle --timeout=10 || :; find_nics; fi
}
carrier() {
  tries=0
  until line "/sys/class/net/$1/carrier"; [ "$line" = 1 ]; do
    tries=$((tries + 1))
    [ $tries -gt 100 ] && { echo "$1 has no carrier" >&2; exit 4; }
    sleep 0.05
  done
}
# routes NIC FAMILY: its routes as `ip route replace` takes them, less the ones that the kernel keeps by itself
routes() {
  ip "-$2" route show dev "$1" |
    sed '/^fe80::/d; /^multicast/d; /^ff00::/d; s/ linkdown//; s/ dead//; s/nhid [0-9]* //; s/\(expires [0-9]*\)sec/\1/'
}
