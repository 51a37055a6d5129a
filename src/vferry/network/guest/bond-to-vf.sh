# shellcheck shell=sh disable=SC2154,SC2086
# Enslaves the VF, unless the guest has done so by itself, and makes it the active slave.

await standby
bond=$(bond_of "$standby"); sys=/sys/class/net/$bond/bonding
[ -n "$bond" ] || { echo "$standby is in no bond" >&2; exit 6; }
await vf
echo 1 > "$sys/all_slaves_active"
if [ "$(bond_of "$vf")" != "$bond" ]; then
  ip link set dev "$vf" down
  ip link set dev "$vf" master "$bond" || [ "$(bond_of "$vf")" = "$bond" ]
fi
ip link set dev "$vf" up
carrier "$vf"
activate "$vf"
echo "$bond: $vf is active"
