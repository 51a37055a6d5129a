# shellcheck shell=sh disable=SC2154,SC2086
# Makes the standby NIC the active slave; `all_slaves_active` lets the bond receive on both meanwhile.

await standby
bond=$(bond_of "$standby"); sys=/sys/class/net/$bond/bonding
[ -n "$bond" ] || { echo "$standby is in no bond" >&2; exit 6; }
remember_name
echo 1 > "$sys/all_slaves_active"
be_patient
activate "$standby"
echo "$bond: $standby is active"
