# shellcheck shell=sh disable=SC2154,SC2086
# Moves addresses and routes from the VF to the standby NIC; the VF goes on receiving.

await standby
[ -n "$vf" ] || exit 0
remember_name
ip link set dev "$standby" mtu "$(cat "/sys/class/net/$vf/mtu")" up
carrier "$standby"
move_to "$vf" "$standby"
route_over "$vf" "$standby"
echo "$vf -> $standby"
