# shellcheck shell=sh disable=SC2154
# What the scripts for a net_failover pair share.

# Takes back what receive-on-both.sh did.
receive_on_vf() {
  [ -e "/run/$key.receives" ] || return 0
  read -r standby own < "/run/$key.receives"
  tc filter del dev "$standby" ingress pref 49000
  [ "$own" = kept ] || tc qdisc del dev "$standby" clsact
  rm "/run/$key.receives"
}
