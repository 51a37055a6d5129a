# shellcheck shell=sh disable=SC2154,SC2086
# Makes the standby NIC the active slave, one of the VF's bond; `all_slaves_active` lets that receive on both meanwhile.

await standby
bond=$(bond_of "$standby")
[ -n "$bond" ] || bond=$(bond_of "$vf")
sys=/sys/class/net/$bond/bonding
[ -n "$bond" ] || { echo "$standby is in no bond" >&2; exit 6; }
remember_name
echo 1 > "$sys/all_slaves_active"
be_patient
[ "$(bond_of "$standby")" = "$bond" ] || enslave "$standby"
activate "$standby"
echo "$bond: $standby is active"
