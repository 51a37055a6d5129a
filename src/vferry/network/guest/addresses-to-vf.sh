# shellcheck shell=sh disable=SC2154,SC2086
# The VF comes up, with the guest's addresses, before it takes the guest's MAC and with it the traffic.

await vf
if [ -z "$standby" ]; then
  [ "$(cat "/sys/class/net/$vf/address")" = "$mac" ] && has_addresses "$vf" && { echo "$vf has them already"; exit 0; }
  echo "the standby NIC of $mac is gone" >&2; exit 5
fi
# If this ends half-way, the mark finds the VF again, which is no longer new and has not the MAC yet.
ip link set dev "$vf" alias "$key" 2>/dev/null || :
take_name
ip link set dev "$vf" addrgenmode none 2>/dev/null || :
ip link set dev "$vf" mtu "$(cat "/sys/class/net/$standby/mtu")" up
carrier "$vf"
move_to "$standby" "$vf"
[ "$(cat "/sys/class/net/$vf/address")" = "$mac" ] || ip link set dev "$vf" address "$mac"
ip link set dev "$vf" addrgenmode eui64 2>/dev/null || :
route_over "$standby" "$vf"
forget_name
echo "$standby -> $vf"
