# shellcheck shell=sh disable=SC2154,SC2086
# Keeps what would get in the way of a second NIC with $mac quiet: strict reverse-path filtering, and NetworkManager and
# systemd-networkd, which would take what is plugged for the guest's own.

find_own
[ -n "$own" ] || exit 0
mkdir -p /run
line "/proc/sys/net/ipv4/conf/$own/rp_filter"
[ -e "/run/$key.rp_filter" ] || echo "$line" > "/run/$key.rp_filter"
cat "/sys/class/net/$own/ifindex" > "/run/$key.ifindex"
has_network_manager || has_networkd || exit 0
remember_configuration
mark_what_is_plugged
! has_network_manager || keep_names
! has_networkd || hush_networkd
