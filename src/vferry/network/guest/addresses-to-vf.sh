# shellcheck shell=sh disable=SC2154,SC2086
# The VF comes up, with the guest's addresses, before it takes the guest's MAC and with it the traffic.

await vf
[ -n "$standby" ] || { echo "the standby NIC of $mac is gone" >&2; exit 5; }
ip link set dev "$vf" addrgenmode none 2>/dev/null || :
ip link set dev "$vf" mtu "$(cat "/sys/class/net/$standby/mtu")" up
carrier "$vf"
move_to "$standby" "$vf"
[ "$(cat "/sys/class/net/$vf/address")" = "$mac" ] || ip link set dev "$vf" address "$mac"
ip link set dev "$vf" addrgenmode eui64 2>/dev/null || :
route_over "$standby" "$vf"
echo "$standby -> $vf"
