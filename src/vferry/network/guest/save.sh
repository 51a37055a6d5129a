# shellcheck shell=sh disable=SC2154
# Writes the addresses and routes of the VF down in /run, before the VF is taken away.

find_nics
# Another NIC that is new is not the VF: what was saved when it was there is still what counts.
[ -n "$vf" ] && [ "$(cat "/sys/class/net/$vf/address")" = "$mac" ] || exit 0
remember_name
saved=/run/$key
{
  echo "mtu $(cat "/sys/class/net/$vf/mtu")"
  ip -o address show dev "$vf" scope global | while read -r _ _ family address _; do
    echo "address $family $address"
  done
  for family in 4 6; do routes "$vf" $family | sed "s/^/route $family /"; done
} > "$saved.new"
mv "$saved.new" "$saved"
cat "$saved"
