# shellcheck shell=sh disable=SC2154,SC2086
# Takes back what quiet.sh did, unless the standby NIC is still there and in use.

find_nics
[ -z "$standby" ] || { echo "$standby is still there: left as it is"; exit 0; }
if [ -e "/run/$key.rp_filter" ]; then
  line "/run/$key.rp_filter"
  [ -z "$vf" ] || echo "$line" > "/proc/sys/net/ipv4/conf/$vf/rp_filter"
  rm -f "/run/$key.rp_filter"
fi
[ ! -e "$marks" ] || mark_no_more
