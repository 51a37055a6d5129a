# shellcheck shell=sh disable=SC2154
# Takes back what receive-on-both.sh did.

[ -e "/run/$key.receives" ] || exit 0
read -r standby own < "/run/$key.receives"
tc filter del dev "$standby" ingress pref 49000
[ "$own" = kept ] || tc qdisc del dev "$standby" clsact
rm "/run/$key.receives"
