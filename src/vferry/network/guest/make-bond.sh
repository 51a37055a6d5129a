# shellcheck shell=sh disable=SC2154,SC2086
# The bond has the standby NIC alone: to be enslaved, the VF would have to go down, only to be unplugged. Called again
# when the bond is to be had back, with the VF in it or not.

await standby
sys=/sys/class/net/$temporary/bonding
if [ ! -e "$sys" ]; then
  # Without this the kernel makes a bond0 of its own.
  modprobe bonding max_bonds=0 2>/dev/null || :
  ip link add name "$temporary" type bond mode active-backup miimon 100
  ip link set dev "$temporary" address "$mac"
fi
echo 1 > "$sys/all_slaves_active"
if [ "$(bond_of "$standby")" != "$temporary" ]; then
  ip link set dev "$standby" down
  ip link set dev "$standby" master "$temporary"
fi
[ -z "$vf" ] || ip link set dev "$temporary" mtu "$(cat "/sys/class/net/$vf/mtu")"
ip link set dev "$temporary" up
activate "$standby"
carrier "$temporary"
be_patient
[ -n "$vf" ] && [ "$(bond_of "$vf")" != "$temporary" ] || exit 0
move_to "$vf" "$temporary"
route_over "$vf" "$temporary"
echo "$vf -> $temporary over $standby"
