# shellcheck shell=sh disable=SC2154
# What the scripts for a net_failover pair share. A redirection is a line "WAY NIC OWN" of $redirected: the way is
# ingress or egress, or done where it was taken back; OWN says whether the NIC's clsact is to be taken away.

redirected=/run/$key.redirected
# redirect WAY NIC TO: what NIC is to receive (ingress), or to send (egress), is received or sent by TO instead.
redirect() {
  grep -qs "^$1 $2 " "$redirected" && return 0
  own=kept
  case $(tc qdisc show dev "$2") in
    *clsact*) ;;
    *) tc qdisc add dev "$2" clsact || return 1
       # That of who sends stays, empty, until the next boot: what is sent while the kernel takes one away is dropped.
       [ "$1" = egress ] || own=made ;;
  esac
  if ! tc filter add dev "$2" "$1" pref 49000 matchall action mirred "$1" redirect dev "$3"; then
    [ $own = kept ] || tc qdisc del dev "$2" clsact
    return 1
  fi
  echo "$1 $2 $own" >> "$redirected"
}
# direct WAY: takes the redirection of that way back.
direct() {
  [ -e "$redirected" ] || return 0
  while read -r way nic own; do
    [ "$way" = "$1" ] || continue
    tc filter del dev "$nic" "$way" pref 49000
    sed -i "s/^$way $nic /done $nic /" "$redirected"
  done < "$redirected"
}
# Takes away what redirections needed, once nothing is sent by the virtio NIC any more.
tidy() {
  [ -e "$redirected" ] || return 0
  while read -r way nic own; do
    [ "$own" = kept ] || tc qdisc del dev "$nic" clsact
  done < "$redirected"
  rm "$redirected"
}
