"""An Open vSwitch of its own on the kernel's datapath; the machine's stays as it is."""

from collections.abc import Sequence
from pathlib import Path

from vferry.host.relay_bridge import PortSpec
from vferry.trial import switch
from vferry.trial.namespace import Namespace
from vferry.trial.switch import IN_THE_KERNEL, Bridge, Switch

DAEMON = Path("/usr/lib/openvswitch-switch/ovs-vswitchd")
"""Where Debian's package has it."""
MODULE = Path("/sys/module/openvswitch")


def missing() -> str:
    """What this machine lacks for it, in words; empty if nothing."""
    lacking = switch.missing(DAEMON, "openvswitch-switch")
    return lacking or ("" if MODULE.exists() else "the kernel has no Open vSwitch: modprobe openvswitch")


class KernelSwitch(Switch):
    """In a network namespace, the datapath is that namespace's."""

    def __init__(self, folder: Path, namespace: Namespace) -> None:
        super().__init__(folder, DAEMON, IN_THE_KERNEL, namespace)

    def join(self, ports: Sequence[PortSpec]) -> None:
        """A bridge of ports that learns."""
        self.add(Bridge("lan", tuple(ports), learns=True))
