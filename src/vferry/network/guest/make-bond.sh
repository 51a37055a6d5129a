# shellcheck shell=sh disable=SC2154,SC2086
# The bond has the standby NIC alone: to be enslaved, the VF would have to go down, only to be unplugged. Called again
# when the bond is to be had back, with the VF in it or not.

await standby
remember_name
bond=$temporary; sys=/sys/class/net/$bond/bonding
if [ ! -e "$sys" ]; then
  # Without this the kernel makes a bond0 of its own.
  modprobe bonding max_bonds=0 2>/dev/null || :
  ip link add name "$bond" type bond mode active-backup miimon 100
  ip link set dev "$bond" address "$mac"
fi
echo 1 > "$sys/all_slaves_active"
if [ "$(bond_of "$standby")" != "$bond" ]; then
  ip link set dev "$standby" down
  ip link set dev "$standby" master "$bond"
fi
[ -z "$vf" ] || ip link set dev "$bond" mtu "$(cat "/sys/class/net/$vf/mtu")"
ip link set dev "$bond" up
activate "$standby"
carrier "$bond"
be_patient
[ -n "$vf" ] && [ "$(bond_of "$vf")" != "$bond" ] || exit 0
move_to "$vf" "$bond"
route_over "$vf" "$bond"
echo "$vf -> $bond over $standby"
