"""An Open vSwitch with DPDK of its own, set up as a relay is; the machine's stays as it is."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec.structs import replace

from vferry.host.api import SetHugePages, SetSwitch
from vferry.host.huge_pages import set_huge_pages
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.relay_bridge import BridgeSpec, PortSpec, set_spec
from vferry.host.relay_ground import read_ground
from vferry.host.relay_switch import set_switch
from vferry.plan.relay_choice import NodeMemory, page_changes, settings
from vferry.trial import switch
from vferry.trial.namespace import Namespace
from vferry.trial.switch import IN_USER_SPACE, Switch

MEMORY_MIB = 512
DAEMON = Path("/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk")
"""Where Debian's package has it."""
HERE = Path("/")


def missing() -> str:
    """What this machine lacks for it, in words; empty if nothing."""
    return switch.missing(DAEMON, "openvswitch-switch-dpdk")


@contextmanager
def huge_pages(mib: int) -> Iterator[None]:
    """So many MiB more of the machine's huge pages, on its first NUMA node. Problem ``huge-pages-refused``."""
    ground = read_ground(HERE, ())
    memory = NodeMemory(node=ground.nodes[0].number, mib=mib, new_mib=mib)
    with ExitStack() as stack:
        for pages in page_changes(ground, [memory]):
            there = SetHugePages(node=pages.node, size_kib=pages.size_kib, count=pages.count)
            back = replace(there, count=pages.before, instead_of=pages.count)
            stack.callback(set_huge_pages, HERE, back)
            set_huge_pages(HERE, there)
        yield


class DpdkSwitch(Switch):
    """It forwards on the CPU `cpu`. Problems: ``bench-no-switch``, and those of `SetSwitch`."""

    def __init__(self, folder: Path, cpu: int, namespace: Namespace) -> None:
        super().__init__(folder, DAEMON, IN_USER_SPACE, namespace)
        self._cpu = cpu

    def join(self, ports: Sequence[PortSpec], *, learning: bool) -> None:
        """A bridge of ports for guests: one that learns as a switched relay's, or joins two as a direct one's."""
        spec = BridgeSpec(name="relay", ports=tuple(ports), mtu=1500, joins=not learning)
        set_spec(self.folder, spec, present=True)

    def _start(self) -> None:
        super()._start()
        ground = replace(read_ground(HERE, ()), switch=OpenVSwitch(self.folder).abilities())
        memory = NodeMemory(node=ground.nodes[0].number, mib=MEMORY_MIB, new_mib=0)
        set_switch(self.folder, SetSwitch(settings=dict(settings(ground, (self._cpu,), [memory])), start=True))
