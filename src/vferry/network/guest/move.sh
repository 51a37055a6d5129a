# shellcheck shell=sh disable=SC2154,SC2086
# Addresses are added without their connected route, then every route is replaced by the same one over the other NIC:
# at no instant has the guest no route. `nodad`: the address is ours already, on the other NIC of the same MAC.

copy_addresses() {
  ip -o address show dev "$1" scope global | while read -r _ _ family address rest; do
    case " $rest " in *" temporary "*) continue ;; esac
    flags=noprefixroute broadcast=
    if [ "$family" = inet6 ]; then flags="nodad noprefixroute"; fi
    case "$rest" in "brd "*) broadcast=${rest#brd } broadcast="broadcast ${broadcast%% *}" ;; esac
    ip address replace "$address" $broadcast dev "$2" $flags
  done
}
# A neighbour's answer to a question asked over one NIC may come in over the other, and be of no use there.
copy_neighbours() {
  ip neighbour show dev "$1" | while read -r address word lladdr _; do
    [ "$word" = lladdr ] || continue
    ip neighbour replace "$address" lladdr "$lladdr" dev "$2" nud reachable 2>/dev/null || :
  done
}
# systemd-resolved knows name servers by link, and forgets them with it. A link that another program configures has its
# own, and takes none.
copy_names() {
  [ -d /run/systemd/resolve ] && command -v resolvectl > /dev/null || return 0
  for what in dns domain; do
    said=$(resolvectl $what "$1" 2>/dev/null) || return 0
    case $said in *": "?*) resolvectl $what "$2" ${said#*: } 2>/dev/null || : ;; *) return 0 ;; esac
  done
}
replace_routes() {
  routes "$1" "$3" | while read -r route; do
    case $route in *" via "*) kind=via ;; *) kind=direct ;; esac
    [ "$kind" = "$4" ] || continue
    ip "-$3" route replace $route dev "$2"
  done
}
move_to() {
  if [ -e "/run/$key.rp_filter" ]; then
    for nic in "$1" "$2"; do echo 2 > "/proc/sys/net/ipv4/conf/$nic/rp_filter"; done
  fi
  copy_addresses "$1" "$2"
  copy_neighbours "$1" "$2"
  copy_names "$1" "$2"
}
route_over() {
  for kind in direct via; do for family in 4 6; do replace_routes "$1" "$2" $family $kind; done; done
}
