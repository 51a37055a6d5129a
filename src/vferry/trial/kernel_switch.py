"""An Open vSwitch of its own on the kernel's datapath; the machine's stays as it is."""

from collections.abc import Sequence
from pathlib import Path

from vferry.host.relay_switch import PortSpec
from vferry.trial.switch import IN_THE_KERNEL, SCHEMA, Switch, set_port

DAEMON = Path("/usr/lib/openvswitch-switch/ovs-vswitchd")
"""Where Debian's package has it."""
MODULE = Path("/sys/module/openvswitch")


def missing() -> str:
    """What this machine lacks for it, in words; empty if nothing."""
    if not DAEMON.exists() or not SCHEMA.exists():
        return "Open vSwitch is not there: apt install openvswitch-switch"
    return "" if MODULE.exists() else "the kernel's Open vSwitch is not there: modprobe openvswitch"


class KernelSwitch(Switch):
    """In a network namespace, and on its kernel's datapath there. Problem ``bench-no-switch``."""

    def __init__(self, folder: Path, inside: Sequence[str]) -> None:
        super().__init__(folder, DAEMON, IN_THE_KERNEL, inside)

    def join(self, ports: Sequence[PortSpec]) -> None:
        """A bridge of ports that learns."""
        commands = (command for port in ports for command in set_port("lan", port))
        self.configure("add-br lan", *commands)
