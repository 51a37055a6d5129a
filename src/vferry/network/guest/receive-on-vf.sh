# shellcheck shell=sh
# The pair is as net_failover has it again: what its virtio NIC receives is dropped while there is a VF.

receive_on_vf
