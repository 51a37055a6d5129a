"""A relay, from its plan through the agent's handlers: the kernel's files and Open vSwitch's database."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from fake_libvirt import FakeAgents, FakeLibvirt
from fake_netlink import FakeLinks, FakeNic
from msgspec.json import decode, encode
from msgspec.structs import replace
from ovs_database import Vswitchd, serve, transact
from test_sriov import make_host

from vferry.host import api
from vferry.host.api import Operation, Session
from vferry.host.boot_pages import FILE
from vferry.host.claims import Claims
from vferry.host.configuration import AgentConfiguration
from vferry.host.handlers import Handlers
from vferry.host.hypervisor import Hypervisor
from vferry.host.ovsdb import SOCKET
from vferry.host.wire import operations, tag
from vferry.model.host import Inventory, MigrationEndpoint, Network
from vferry.model.problem import Problem
from vferry.model.relay import RelayPort, RelayState, RelayUplink
from vferry.plan.relay import RelayPlan, RelayWishes, assess_disabling, assess_enabling

VFS = ("0000:01:10.0", "0000:01:10.2")
PAGES = "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
MINE = Session(operation="relay-1")


class Host:
    """A host of one NUMA node with a PF of two VFs, one on igbvf, one on nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pci = root / "sys/bus/pci"
        self.nic = FakeNic()
        self.handlers = self.new_handlers()

    def new_handlers(self) -> Handlers:
        """An agent that is started, and finds what another has left."""
        self.claims = Claims(self.root / "state/claims", 2)
        return Handlers(
            AgentConfiguration(
                name="host1",
                migration=MigrationEndpoint(address="127.0.0.1", ports=(49200, 49210)),
                networks={"physnet1": Network(pf="pf0")},
            ),
            self.claims,
            self.root / "state",
            hypervisor=Hypervisor(library=FakeLibvirt(), agent_library=FakeAgents()),
            runtime=self.root / "run/vferry",
            root=self.root,
            links=lambda: cast("Any", FakeLinks(self.nic)),
            write=self.write,
        )

    def boot(self) -> None:
        """What the kernel has of it after a boot."""
        for at, driver in enumerate(("igbvf", None)):
            device = self.pci / "devices" / VFS[at]
            (device / "driver").unlink(missing_ok=True)
            (device / "driver_override").write_text("\n")
            if driver:
                (device / "driver").symlink_to(self.pci / "drivers" / driver)
            self.nic.vfs[at] |= {"IFLA_VF_TRUST": {"trust": 0}, "IFLA_VF_SPOOFCHK": {"spoofchk": 1}}
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
        plan = assess_disabling(await self.inventory()).plan
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


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    make_root(tmp_path)
    with serve(tmp_path), Vswitchd(tmp_path):
        said = {"ovs_version": "3.5.0", "dpdk_version": "DPDK 24.11.1", "other_config": ["map", [["mine", "1"]]]}
        transact(tmp_path / SOCKET, {"op": "update", "table": "Open_vSwitch", "where": [], "row": said})
        yield tmp_path


@pytest.fixture
async def host(served: Path) -> AsyncIterator[Host]:
    host = Host(served)
    host.boot()
    yield host
    host.handlers.close()


@pytest.mark.parametrize("switched", [False, True])
async def test_there_and_back(host: Host, *, switched: bool) -> None:
    before = host.state()
    await host.enable(switched=switched)
    made = host.state()
    assert made["pages"] == "522"
    assert made["settings"] == {
        "mine": "1",
        "dpdk-extra": "-a 0000:00:00.0",
        "dpdk-init": "try",
        "dpdk-socket-mem": "1024",
        "dpdk-socket-limit": "1024",
        "pmd-cpu-mask": "0x8",
        "pmd-sleep-max": "200",
    }
    assert made["boot"]
    assert made["bridges"] == (["relay0"] if switched else [])
    assert made["drivers"] == ["vfio-pci" if switched else "igbvf"]
    assert made["vfs"][0]["IFLA_VF_TRUST"] == {"trust": int(switched)}
    inventory = await host.inventory()
    assert inventory.relay is not None
    assert inventory.relay.state is RelayState.ENABLED
    assert [vf.claim for vf in inventory.pfs[0].vfs] == ["relay-1" if switched else None, None]
    await host.disable()
    assert host.state() == before


async def test_whatever_fails_all_is_as_before(host: Host) -> None:
    before = host.state()
    operations = [operation for step in (await host.plan()).steps for operation in step.apply]
    host.claims.release(MINE)
    for number in range(len(operations)):
        for answered in (False, True):
            await _fail(host, number, answered=answered)
            assert host.state() == before, (operations[number], answered)


async def _fail(host: Host, number: int, *, answered: bool) -> None:
    """One operation is not carried out, or its answer is lost; then all steps so far are undone."""
    begun = []
    plan = await host.plan()
    left = number
    for step in plan.steps:
        begun.append(step)
        for operation in step.apply:
            if left > 0 or answered:
                await host.ask(operation)
            left -= 1
        if left < 0:
            break
    for step in reversed(begun):
        for operation in step.undo:
            await host.ask(operation)
    host.claims.release(MINE)


async def test_a_vf_that_is_not_claimed_is_no_uplink(host: Host) -> None:
    wanted = (await host.plan()).relay.bridges[0]
    with_other = replace(wanted, uplinks=(*wanted.uplinks, RelayUplink(name="other", address=VFS[1])))
    with pytest.raises(Problem) as caught:
        await host.ask(api.SetRelayBridge(bridge=with_other, present=True))
    assert caught.value.code == "not-claimed"
    assert host.state()["bridges"] == []


async def test_an_agent_that_is_started_anew_knows_it(host: Host) -> None:
    before = host.state()
    plan = await host.enable()
    host.handlers.close()
    host.handlers = host.new_handlers()
    assert (await host.inventory()).relay == replace(plan.relay, state=RelayState.ENABLED)
    await host.disable()
    assert host.state() == before


async def test_a_host_that_is_booted_has_it_again(host: Host) -> None:
    plan = await host.enable()
    made = host.state()
    host.boot()
    assert host.state() != made
    host.handlers.close()
    host.handlers = host.new_handlers()
    await host.handlers.started()
    assert host.state() == made
    assert (await host.inventory()).relay == replace(plan.relay, state=RelayState.ENABLED)


@pytest.mark.parametrize("state", [RelayState.ENABLING, RelayState.DISABLING])
async def test_one_that_is_half_made_is_left_to_whoever_made_it(host: Host, state: RelayState) -> None:
    plan = await host.enable()
    await host.ask(api.KeepRelay(relay=replace(plan.relay, state=state)))
    host.boot()
    booted = host.state()
    await host.handlers.started()
    assert host.state() == booted


async def test_what_cannot_be_had_again_keeps_nothing_else(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    await host.enable()
    host.boot()
    (host.root / PAGES).unlink()
    await host.handlers.started()
    assert "memory on NUMA node 0 is not as it was" in caplog.text
    assert (host.pci / "devices" / VFS[0] / "driver").readlink().name == "vfio-pci"


async def test_a_guest_s_port_there_and_back(host: Host) -> None:
    before = host.state()
    host.claims.claim(MINE, vfs=(VFS[1],), slot=False)
    port = RelayPort(mac="52:54:00:aa:00:01", socket="/run/x.sock", vf=VFS[1])
    assert (await host.ask(api.SetRelayPort(port=port, present=True))).changed
    assert host.state()["bridges"] == ["vfr525400aa0001"]
    assert (await host.ask(api.SetRelayPort(port=port, present=False))).changed
    host.claims.release(MINE)
    assert host.state() == before


async def test_the_view_of_one(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = await host.enable()
    view = await host.ask(api.ReadRelay(), None)
    assert view.relay == replace(plan.relay, state=RelayState.ENABLED)
    assert [port.name for port in view.ports] == ["relay0-up0"]
    assert view.dpdk_started
    (host.root / SOCKET).rename(host.root / "away")
    monkeypatch.setattr("vferry.host.ovsdb.TIMEOUT_S", 0.1)
    silent = await host.ask(api.ReadRelay(), None)
    (host.root / "away").rename(host.root / SOCKET)
    assert (silent.relay, silent.ports) == (view.relay, ())
    assert "Open vSwitch does not do its work" in silent.silence
