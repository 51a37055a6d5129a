# shellcheck shell=sh disable=SC2154,SC2086
# Keeps what would get in the way of a second NIC with $mac quiet: strict reverse-path filtering, and NetworkManager and
# systemd-networkd, which would take the standby NIC for the guest's own, as both have the MAC that they go by.

find_nics
[ -n "$vf" ] || exit 0
mkdir -p /run
line "/proc/sys/net/ipv4/conf/$vf/rp_filter"
[ -e "/run/$key.rp_filter" ] || echo "$line" > "/run/$key.rp_filter"
[ ! -d /run/NetworkManager ] || hush_network_manager
# The folder is there on any system with systemd, this file where networkd has been started.
[ -e /run/systemd/netif/state ] || exit 0
mkdir -p /run/systemd/network
cat > "/run/systemd/network/00-$key.network" <<END
[Match]
PermanentMACAddress=$mac
Driver=virtio_net
[Link]
Unmanaged=yes
END
networkctl reload
