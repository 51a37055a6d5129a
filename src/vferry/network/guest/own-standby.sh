# shellcheck shell=sh disable=SC2034,SC2154
# The guest has the standby NIC, and the VF is `other`, while it is there: no spare NIC of the guest is taken for it.

find_own() {
  find_nics
  own=$standby other=''
  [ -n "$vf" ] || return 0
  line "/sys/class/net/$vf/address"
  [ "$line" != "$mac" ] || other=$vf
}
