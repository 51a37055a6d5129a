# shellcheck shell=sh disable=SC2154,SC2086
# Gives a newly plugged VF the addresses and routes that save.sh wrote down; once it has them, there is nothing to do.

saved=/run/$key
[ -r "$saved" ] || { echo "nothing is left to restore"; exit 0; }
await vf
take_name
[ "$(cat "/sys/class/net/$vf/address")" = "$mac" ] || ip link set dev "$vf" address "$mac"
ip link set dev "$vf" up
carrier "$vf"
while read -r kind family rest; do
  case $kind in
    mtu) ip link set dev "$vf" mtu "$family" ;;
    address) [ "$family" = inet6 ] && flags=nodad || flags=; ip address replace $rest dev "$vf" $flags ;;
  esac
done < "$saved"
for wanted in direct via; do
  while read -r kind family rest; do
    [ "$kind" = route ] || continue
    case $rest in *" via "*) this=via ;; *) this=direct ;; esac
    [ "$this" = $wanted ] || continue
    ip "-$family" route replace $rest dev "$vf"
  done < "$saved"
done
rm -f "$saved"
forget_name
own=$vf
renew_dhclient
echo "$vf has its addresses back"
