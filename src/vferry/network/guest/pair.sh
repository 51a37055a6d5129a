# shellcheck shell=sh disable=SC2154
# What the scripts for a net_failover pair share. A redirection is a line "NIC WAY OWN" of $redirected: the way is
# ingress or egress, OWN says whether the NIC's clsact is the guest's own.

redirected=/run/$key.redirected
# redirect WAY NIC TO: what NIC is to receive (ingress), or to send (egress), is received or sent by TO instead.
redirect() {
  grep -qs "^$2 $1 " "$redirected" && return 0
  own=kept
  case $(tc qdisc show dev "$2") in
    *clsact*) ;;
    *) tc qdisc add dev "$2" clsact || return 1
       own=made ;;
  esac
  if ! tc filter add dev "$2" "$1" pref 49000 matchall action mirred "$1" redirect dev "$3"; then
    [ $own = kept ] || tc qdisc del dev "$2" clsact
    return 1
  fi
  echo "$2 $1 $own" >> "$redirected"
}
# direct WAY: takes the redirection of that way back.
direct() {
  [ -e "$redirected" ] || return 0
  while read -r nic way own; do
    [ "$way" = "$1" ] || continue
    tc filter del dev "$nic" "$way" pref 49000
    [ "$own" = kept ] || tc qdisc del dev "$nic" clsact
    sed -i "/ $way /d" "$redirected"
  done < "$redirected"
  [ -s "$redirected" ] || rm "$redirected"
}
