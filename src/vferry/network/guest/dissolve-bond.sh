# shellcheck shell=sh disable=SC2154,SC2086
# A slave that is let go is closed, and for that long its guest hears nothing by it. The standby NIC sends meanwhile.

await vf
bond=$temporary; sys=/sys/class/net/$bond/bonding
[ -e "$sys" ] || { echo "$bond is gone"; exit 0; }
# Let go, the VF may have the MAC again that it was plugged with: the mark finds it then.
ip link set dev "$vf" alias "$key" 2>/dev/null || :
if [ "$(bond_of "$vf")" = "$bond" ]; then
  [ -z "$standby" ] || activate "$standby"
  ip link set dev "$vf" nomaster
fi
ip link set dev "$vf" addrgenmode none 2>/dev/null || :
[ "$(cat "/sys/class/net/$vf/address")" = "$mac" ] || ip link set dev "$vf" address "$mac"
ip link set dev "$vf" mtu "$(cat "/sys/class/net/$bond/mtu")" up
carrier "$vf"
move_to "$bond" "$vf"
ip link set dev "$vf" addrgenmode eui64 2>/dev/null || :
route_over "$bond" "$vf"
ip link delete dev "$bond"
rm -f "/run/$key.updelay"
echo "$bond -> $vf"
