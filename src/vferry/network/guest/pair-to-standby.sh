# shellcheck shell=sh disable=SC2154,SC2086
# The pair sends by its virtio NIC, and takes what either NIC receives, although it has a VF. net_failover would send by
# the VF as soon as that has a carrier, some time before or after it can send, and drops what the virtio NIC receives as
# long as there is a VF. A guest without tc, or whose kernel cannot redirect, loses as much.

find_nics
[ -e "/sys/class/net/$vf/master" ] || { echo "${vf:-no VF} of $mac is in no pair" >&2; exit 9; }
pair=$(readlink -f "/sys/class/net/$vf/master"); pair=${pair##*/}
standby=''
for lower in "/sys/class/net/$pair"/lower_*; do
  [ "${lower##*/lower_}" = "$vf" ] || standby=${lower##*/lower_}
done
[ -n "$standby" ] || { echo "$pair has no virtio NIC" >&2; exit 9; }
command -v tc > /dev/null || { echo "no tc: what $standby receives is lost until $vf is gone"; exit 0; }
redirect ingress "$standby" "$pair" || { echo "what $standby receives is lost until $vf is gone"; exit 0; }
redirect egress "$pair" "$standby" || echo "what $vf is given is lost when it can send no more"
echo "$pair sends by $standby, and receives on both"
