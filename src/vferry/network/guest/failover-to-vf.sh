# shellcheck shell=sh disable=SC2154,SC2086
# Waits until the guest's net_failover driver has the VF, and lets it use that alone. It goes by the MAC that a NIC
# appears with: a VF that its PF answered too late has made one up, and is asked again by binding its driver anew.

anew() {
  device=$(readlink -f "/sys/class/net/$vf/device"); driver=$(readlink -f "$device/driver")
  echo "${device##*/}" > "$driver/unbind"
  echo "${device##*/}" > "$driver/bind"
}
# A carrier is not enough to send: the kernel gives a NIC its queue later, with the state that it tells of.
sends() {
  tries=0
  until line "/sys/class/net/$vf/operstate"; [ "$line" = up ] || [ "$line" = unknown ]; do
    tries=$((tries + 1))
    [ $tries -gt 200 ] && { echo "$vf has no carrier, or cannot send" >&2; exit 4; }
    sleep 0.05
  done
  carrier "$vf"
}
tries=0
until find_nics; [ -n "$vf" ] && [ -e "/sys/class/net/$vf/master" ]; do
  tries=$((tries + 1))
  [ $tries -gt 100 ] && { echo "net_failover does not use ${vf:-any VF} for $mac" >&2; exit 8; }
  if [ -n "$vf" ] && [ $((tries % 30)) = 29 ]; then anew; fi
  sleep 0.1
done
# It receives from here on, before it has a carrier. Both NICs' frames are twice the work.
direct ingress
sends
direct egress
tidy
echo "$vf is the one that net_failover uses"
