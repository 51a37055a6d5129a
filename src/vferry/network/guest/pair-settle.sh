# shellcheck shell=sh
# The pair is as net_failover has it again: it uses its VF while there is one.

direct egress
direct ingress
tidy
