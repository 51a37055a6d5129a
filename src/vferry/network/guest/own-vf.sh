# shellcheck shell=sh disable=SC2034,SC2154
# The guest has the VF, and the standby NIC is `other`, while it is there.

find_own() { find_nics; own=$vf other=$standby; }
