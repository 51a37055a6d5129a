# shellcheck shell=sh disable=SC2154,SC2086
# A slave that is let go is closed, and for that long its guest hears nothing by it. The standby NIC sends meanwhile.

await vf
sys=/sys/class/net/$temporary/bonding
[ -e "$sys" ] || { echo "$temporary is gone"; exit 0; }
# Let go, the VF may have the MAC again that it was plugged with: the mark finds it then.
ip link set dev "$vf" alias "$key" 2>/dev/null || :
if [ "$(bond_of "$vf")" = "$temporary" ]; then
  [ -z "$standby" ] || activate "$standby"
  ip link set dev "$vf" nomaster
fi
ip link set dev "$vf" addrgenmode none 2>/dev/null || :
[ "$(cat "/sys/class/net/$vf/address")" = "$mac" ] || ip link set dev "$vf" address "$mac"
ip link set dev "$vf" mtu "$(cat "/sys/class/net/$temporary/mtu")" up
carrier "$vf"
move_to "$temporary" "$vf"
ip link set dev "$vf" addrgenmode eui64 2>/dev/null || :
route_over "$temporary" "$vf"
ip link delete dev "$temporary"
rm -f "/run/$key.updelay"
echo "$temporary -> $vf"
