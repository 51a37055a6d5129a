# shellcheck shell=sh disable=SC2154,SC2086
# Enslaves the VF, unless the guest has done so by itself, and makes it the active slave.

find_nics
# Undone before there was a standby NIC.
if [ -z "$standby" ] && [ -n "$vf" ] && [ -n "$(bond_of "$vf")" ]; then echo "$vf is in its bond"; exit 0; fi
await standby
bond=$(bond_of "$standby"); sys=/sys/class/net/$bond/bonding
[ -n "$bond" ] || { echo "$standby is in no bond" >&2; exit 6; }
await vf
take_name
echo 1 > "$sys/all_slaves_active"
enslave "$vf"
activate "$vf"
be_as_before
forget_name
echo "$bond: $vf is active"
