# shellcheck shell=sh disable=SC2154,SC2086
# Waits until the guest's net_failover driver uses the VF, and has it receive there alone. It goes by the MAC that a NIC
# appears with: a VF that its PF answered too late has made one up, and is asked again by binding its driver anew.

anew() {
  device=$(readlink -f "/sys/class/net/$vf/device"); driver=$(readlink -f "$device/driver")
  echo "${device##*/}" > "$driver/unbind"
  echo "${device##*/}" > "$driver/bind"
}
tries=0
until find_nics; [ -n "$vf" ] && [ -e "/sys/class/net/$vf/master" ]; do
  tries=$((tries + 1))
  [ $tries -gt 100 ] && { echo "net_failover does not use ${vf:-any VF} for $mac" >&2; exit 8; }
  if [ -n "$vf" ] && [ $((tries % 30)) = 29 ]; then anew; fi
  sleep 0.1
done
# It receives from here on, before it has a carrier. Both NICs' frames are twice the work.
receive_on_vf
carrier "$vf"
echo "$vf is the one that net_failover uses"
