"""A host's Open vSwitch: what it is told of CPUs, and what operators are told of it, alike on all distributions."""

CPUS = "pmd-cpu-mask"
"""Its setting of the CPUs on which it forwards."""
LOG = "/var/log/openvswitch/ovs-vswitchd.log"
"""Here it says why: it is started with the journal for errors alone (ovs-ctl), and most reasons are warnings."""
RESTART = "systemctl restart ovs-vswitchd"
STATUS = "systemctl status ovsdb-server ovs-vswitchd"


def cpus_of_mask(mask: str) -> tuple[int, ...]:
    """The CPUs of a mask in hexadecimal; none of what is no mask."""
    try:
        number = int(mask, 16)
    except ValueError:
        return ()
    return tuple(cpu for cpu in range(number.bit_length()) if number >> cpu & 1) if number > 0 else ()
