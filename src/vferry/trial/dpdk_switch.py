"""An Open vSwitch with DPDK of its own, set up as a relay is; the machine's stays as it is."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec.structs import replace

from vferry.host.api import SetHugePages, SetSwitch
from vferry.host.huge_pages import set_huge_pages
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.relay_ground import read_ground
from vferry.host.relay_switch import BridgeSpec, PortSpec, set_spec, set_switch
from vferry.model.problem import Exit, Problem
from vferry.plan.relay_choice import NodeMemory, page_changes, settings
from vferry.trial.process import Process
from vferry.trial.started import Started

MEMORY_MIB = 512
DAEMON = Path("/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk")
"""Where Debian's package has it."""
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
HERE = Path("/")


def missing() -> str:
    """What this machine lacks for it, in words; empty if nothing."""
    if not DAEMON.exists() or not SCHEMA.exists():
        return "Open vSwitch with DPDK is not there: apt install openvswitch-switch-dpdk python3-openvswitch"
    return (
        ""
        if read_ground(HERE, ()).library
        else "Open vSwitch's Python binding is not there: apt install python3-openvswitch"
    )


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


class DpdkSwitch(Started):
    """It runs in `folder`, forwards on the CPU `cpu`, and has its ports in the namespace that `inside` enters.

    Problems: ``bench-no-switch``, and those of `SetSwitch`.
    """

    def __init__(self, folder: Path, cpu: int, inside: Sequence[str]) -> None:
        super().__init__()
        self._folder, self._cpu, self._inside = folder, cpu, inside
        self._run = folder / "run/openvswitch"

    def join(self, sockets: Sequence[Path], *, learning: bool) -> None:
        """A bridge of ports for guests: one that learns as a switched relay's, or joins two as a direct one's."""
        ports = tuple(
            PortSpec(name=f"g{at}", interfaces={f"g{at}": ("dpdkvhostuserclient", {"vhost-server-path": str(socket)})})
            for at, socket in enumerate(sockets)
        )
        set_spec(self._folder, BridgeSpec(name="relay", ports=ports, mtu=1500, joins=not learning), present=True)

    def version(self) -> str:
        """Of Open vSwitch and of DPDK."""
        abilities = OpenVSwitch(self._folder).abilities()
        return f"{abilities.version}, DPDK {abilities.dpdk_version}" if abilities else ""

    def _start(self) -> None:
        self._run.mkdir(parents=True)
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        database, socket = self._folder / "conf.db", f"unix:{self._run}/db.sock"
        self._done(["ovsdb-tool", "create", str(database), str(SCHEMA)])
        self._daemon(["ovsdb-server", str(database), f"--remote=p{socket}"])
        self._done(["ovs-vsctl", "--retry", "--timeout=15", f"--db={socket}", "--no-wait", "init"])
        self._daemon([str(DAEMON), socket])
        ground = replace(read_ground(HERE, ()), switch=OpenVSwitch(self._folder).abilities())
        memory = NodeMemory(node=ground.nodes[0].number, mib=MEMORY_MIB, new_mib=0)
        set_switch(self._folder, SetSwitch(settings=dict(settings(ground, (self._cpu,), [memory])), start=True))

    def _daemon(self, argv: Sequence[str]) -> None:
        logs = ["-vconsole:off", f"--log-file={self._folder}/{Path(argv[0]).name}.log"]
        self._stack.enter_context(Process([*self._inside, *self._environment(), *argv, *logs]))

    def _done(self, argv: Sequence[str]) -> None:
        done = subprocess.run([*self._environment(), *argv], capture_output=True, text=True, check=False)
        if done.returncode:
            why = f"{argv[0]}: {done.stderr.strip()}"
            raise Problem("bench-no-switch", why, "Install openvswitch-switch-dpdk; run it as root", exit=Exit.UNDONE)

    def _environment(self) -> list[str]:
        folders = {name: str(self._run) for name in ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "RUNTIME_DIRECTORY")}
        return ["env", *(f"{name}={path}" for name, path in folders.items())]
