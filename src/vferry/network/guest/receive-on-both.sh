# shellcheck shell=sh disable=SC2154
# net_failover drops what its virtio NIC receives as long as there is a VF, and a VF has ceased to receive some time
# before it is gone. So what comes in there is handed to the pair's own NIC, before net_failover sees it. A guest
# without tc, or whose kernel cannot do that, loses as much.

find_nics
[ -e "/sys/class/net/$vf/master" ] || { echo "${vf:-no VF} of $mac is in no pair" >&2; exit 9; }
pair=$(readlink -f "/sys/class/net/$vf/master"); pair=${pair##*/}
standby=''
for lower in "/sys/class/net/$pair"/lower_*; do
  [ "${lower##*/lower_}" = "$vf" ] || standby=${lower##*/lower_}
done
[ -n "$standby" ] || { echo "$pair has no virtio NIC" >&2; exit 9; }
[ ! -e "/run/$key.receives" ] || exit 0
command -v tc > /dev/null || { echo "no tc: what $standby receives is lost until $vf is gone"; exit 0; }
own=kept
case $(tc qdisc show dev "$standby") in
  *clsact*) ;;
  *) own=made
     tc qdisc add dev "$standby" clsact || { echo "no clsact: what $standby receives is lost"; exit 0; } ;;
esac
if ! tc filter add dev "$standby" ingress pref 49000 matchall action mirred ingress redirect dev "$pair"; then
  [ $own = kept ] || tc qdisc del dev "$standby" clsact
  echo "no mirred: what $standby receives is lost until $vf is gone"
  exit 0
fi
echo "$standby $own" > "/run/$key.receives"
echo "$pair receives on $standby as well"
