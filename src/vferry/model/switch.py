"""What operators are told of a host's Open vSwitch, alike on all distributions."""

LOG = "/var/log/openvswitch/ovs-vswitchd.log"
"""Here it says why: it is started with the journal for errors alone (ovs-ctl), and most reasons are warnings."""
RESTART = "systemctl restart ovs-vswitchd"
STATUS = "systemctl status ovsdb-server ovs-vswitchd"
