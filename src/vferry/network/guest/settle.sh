# shellcheck shell=sh disable=SC2154,SC2086
# Takes back what quiet.sh did, unless the other NIC is still there and in use.

find_own
[ -z "$other" ] || { echo "$other is still there: left as it is"; exit 0; }
if [ -e "/run/$key.rp_filter" ]; then
  line "/run/$key.rp_filter"
  [ -z "$own" ] || echo "$line" > "/proc/sys/net/ipv4/conf/$own/rp_filter"
  rm -f "/run/$key.rp_filter"
fi
[ ! -e "$marks" ] || mark_no_more
line "/run/$key.ifindex"; was=$line
[ -n "$own" ] && [ -n "$was" ] || exit 0
rm "/run/$key.ifindex"
line "/sys/class/net/$own/ifindex"
[ "$line" = "$was" ] || renew_dhclient
