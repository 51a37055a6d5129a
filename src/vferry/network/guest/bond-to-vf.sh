# shellcheck shell=sh disable=SC2154,SC2086
# Enslaves the VF, unless the guest has done so by itself, and makes it the active slave.

await standby
bond=$(bond_of "$standby"); sys=/sys/class/net/$bond/bonding
[ -n "$bond" ] || { echo "$standby is in no bond" >&2; exit 6; }
await vf
take_name
echo 1 > "$sys/all_slaves_active"
# A NIC that is up must go down to be enslaved; one that the guest has just enslaved by itself must not.
tries=0
until ip link set dev "$vf" master "$bond" 2>/dev/null || [ "$(bond_of "$vf")" = "$bond" ]; do
  tries=$((tries + 1))
  if [ $tries -gt 20 ]; then ip link set dev "$vf" master "$bond"; exit 8; fi
  ip link set dev "$vf" down
done
ip link set dev "$vf" up
carrier "$vf"
activate "$vf"
be_as_before
forget_name
echo "$bond: $vf is active"
