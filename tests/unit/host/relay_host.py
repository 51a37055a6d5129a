"""A host of the agent's on which a relay can be made: its files, a real database of Open vSwitch, and its agent."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from fake_libvirt import FakeAgents, FakeLibvirt
from fake_netlink import FakeLinks, FakeNic
from msgspec.json import decode, encode
from ovs_database import Vswitchd, serve, transact
from test_sriov import make_host

from vferry.host import api
from vferry.host.api import Operation, Session
from vferry.host.boot_pages import FILE
from vferry.host.claims import Claims
from vferry.host.configuration import AgentConfiguration
from vferry.host.handlers import Handlers
from vferry.host.handlers.parts import Parts
from vferry.host.hypervisor import Hypervisor
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.ovsdb import SOCKET
from vferry.host.wire import operations, tag
from vferry.model.host import NO_MAC, Inventory, MigrationEndpoint, Network
from vferry.model.problem import Problem
from vferry.plan.relay import RelayPlan, RelayWishes, assess_disabling, assess_enabling

VFS = ("0000:01:10.0", "0000:01:10.2")
PAGES = "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
MINE = Session(operation="relay-1")
MOVING, OTHERS = Session(operation="op-1"), Session(operation="op-2")


class Host:
    """A host of one NUMA node with a PF of two VFs, one on igbvf, one on nothing."""

    def __init__(self, root: Path, switch: Vswitchd) -> None:
        self.root = root
        self.switch = switch
        self.library = FakeLibvirt()
        self.pci = root / "sys/bus/pci"
        self.nic = FakeNic()
        self.handlers = self.new_handlers()

    def restart(self) -> None:
        """The agent ends, and another one is started."""
        self.handlers.close()
        self.handlers = self.new_handlers()

    def new_handlers(self) -> Handlers:
        """An agent that is started, and finds what another has left."""
        self.claims = Claims(self.root / "state/claims", 2)
        return Handlers(
            Parts(
                AgentConfiguration(
                    name="host1",
                    migration=MigrationEndpoint(address="127.0.0.1", ports=(49200, 49210)),
                    networks={"physnet1": Network(pf="pf0")},
                ),
                self.claims,
                self.root / "state",
                hypervisor=Hypervisor(library=self.library, agent_library=FakeAgents()),
                runtime=self.root / "run/vferry",
                root=self.root,
                links=lambda: cast("Any", FakeLinks(self.nic)),
                write=self.write,
            )
        )

    def boot(self) -> None:
        """What the kernel has of it after a boot."""
        boot_id = self.root / "proc/sys/kernel/random/boot_id"
        boot_id.parent.mkdir(parents=True, exist_ok=True)
        boot_id.write_text(f"{uuid4()}\n")
        for at, driver in enumerate(("igbvf", None)):
            device = self.pci / "devices" / VFS[at]
            (device / "driver").unlink(missing_ok=True)
            (device / "driver_override").write_text("\n")
            if driver:
                (device / "driver").symlink_to(self.pci / "drivers" / driver)
            fresh: dict[str, dict[str, Any]] = {
                "IFLA_VF_TRUST": {"trust": 0},
                "IFLA_VF_SPOOFCHK": {"spoofchk": 1},
                "IFLA_VF_MAC": {"mac": NO_MAC},
            }
            self.nic.vfs[at] |= fresh
        (self.root / PAGES).write_text("10\n")

    def write(self, path: Path, text: str) -> None:
        """The kernel's reaction."""
        if path.name in ("driver_override", "nr_hugepages"):
            path.write_text(text)
        elif path.name == "unbind":
            (self.pci / "devices" / text / "driver").unlink()
        else:
            assert path.name == "drivers_probe"
            wanted = (self.pci / "devices" / text / "driver_override").read_text().strip()
            (self.pci / "devices" / text / "driver").symlink_to(self.pci / "drivers" / (wanted or "igbvf"))

    def state(self) -> dict[str, Any]:
        """All that a relay changes, as it is now."""
        columns = [{"op": "select", "table": "Bridge", "where": [], "columns": ["name"]}]
        columns += [{"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["other_config"]}]
        bridges, switch = transact(self.root / SOCKET, *columns)
        return {
            "pages": (self.root / PAGES).read_text().strip(),
            "drivers": [path.readlink().name for vf in VFS if (path := self.pci / "devices" / vf / "driver").exists()],
            "vfs": [dict(vf) for vf in self.nic.vfs],
            "bridges": sorted(row["name"] for row in bridges["rows"]),
            "settings": dict(switch["rows"][0]["other_config"][1]),
            "claims": self.claims.all(),
            "record": (self.root / "state/relay.json").exists(),
            "boot": (self.root / FILE).exists(),
        }

    async def ask(self, operation: Operation[Any], session: Session | None = MINE) -> Any:
        """As over the wire."""
        asked = decode(encode(operation), type=operations()[tag(operation)])
        return await self.handlers.handle(asked, session)

    async def inventory(self) -> Inventory:
        found = await self.ask(api.TakeInventory(), None)
        assert isinstance(found, Inventory)
        return decode(encode(found), type=Inventory)

    async def plan(self, *, switched: bool = True) -> RelayPlan:
        found = assess_enabling(
            await self.inventory(), RelayWishes(operation=MINE.operation, uplinks=("pf0",), switched=switched)
        )
        assert found.plan is not None, found.errors
        self.claims.claim(MINE, vfs=found.plan.relay.addresses, slot=False)
        return found.plan

    async def enable(self, *, switched: bool = True) -> RelayPlan:
        plan = await self.plan(switched=switched)
        for step in plan.steps:
            for operation in step.apply:
                await self.ask(operation)
        return plan

    async def disable(self) -> None:
        plan = assess_disabling(await self.inventory(), await self.ask(api.ReadRelay(), None)).plan
        assert plan is not None
        for step in plan.steps:
            for operation in step.apply:
                await self.ask(operation)
        self.claims.release(MINE)


def make_root(root: Path) -> None:
    make_host(root)
    node = root / "sys/devices/system/node/node0"
    files = {
        node / "cpulist": "0-3",
        node / "meminfo": "Node 0 MemFree: 8388608 kB",
        root / PAGES: "10",
        (root / PAGES).with_name("free_hugepages"): "10",
        root / "sys/class/iommu/dmar0": "",
        root / "sys/class/net/pf0/device/numa_node": "0",
        root / "proc/cpuinfo": "processor\t: 0\n",
        (root / FILE).with_name("other.conf"): "",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    for address in VFS:
        device = root / "sys/bus/pci/devices" / address
        (device / "physfn").symlink_to(device)
        (device / "iommu_group").unlink(missing_ok=True)
        (device / "iommu_group").symlink_to(root / "sys/kernel/iommu_groups/14")


@contextmanager
def running(root: Path) -> Iterator[Host]:
    """Such a host below `root`, with an Open vSwitch that does its work, and says that it is there."""
    make_root(root)
    with serve(root), Vswitchd(root) as switch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenVSwitch, "_version", lambda _: "3.5.0")
        said = {"ovs_version": "3.5.0", "dpdk_version": "DPDK 24.11.1", "other_config": ["map", [["mine", "1"]]]}
        transact(root / SOCKET, {"op": "update", "table": "Open_vSwitch", "where": [], "row": said})
        host = Host(root, switch)
        host.boot()
        yield host
        host.handlers.close()


async def refused(host: Host, operation: Operation[Any], session: Session = MOVING) -> str:
    """As what Problem it is refused, which has a remedy."""
    with pytest.raises(Problem) as caught:
        await host.ask(operation, session)
    assert caught.value.remedy
    return caught.value.code
