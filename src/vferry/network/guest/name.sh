# shellcheck shell=sh disable=SC2154,SC2086
# Configuration, firewall rules and programs in the guest go by its NIC's name: the new VF takes that of the one before.

remember_name() {
  [ -n "$vf" ] && [ ! -e "/run/$key.name" ] || return 0
  mkdir -p /run
  echo "$vf" > "/run/$key.name"
}
# Nothing goes over the new VF yet, so it may go down, as kernels before 6.2 want it. One that the guest has put to use
# by itself has the name that the guest knows it by.
take_name() {
  line "/run/$key.name"; was=$line
  [ -n "$was" ] && [ "$was" != "$vf" ] && [ ! -e "/sys/class/net/$was" ] || return 0
  [ ! -e "/sys/class/net/$vf/master" ] && ! has_addresses "$vf" || return 0
  ip link set dev "$vf" down
  ! ip link set dev "$vf" name "$was" 2>/dev/null || vf=$was
}
forget_name() { rm -f "/run/$key.name"; }
