import asyncio
import errno
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self, cast

import msgspec
import pytest
from fake_libvirt import FakeAgents, FakeDomain, FakeLibvirt
from fake_netlink import PF_INDEX, FakeLinks, FakeNic
from msgspec import Struct
from test_sriov import make_host
from xml_samples import (
    MAC,
    MACVTAP,
    MDEV,
    ON_NETWORK,
    ON_NETWORK_MACVTAP,
    ON_NETWORK_OVS,
    STANDBY,
    VF_INTERFACE,
    domain,
)

from vferry.host import api
from vferry.host.announcement import rarp
from vferry.host.api import Operation, Session
from vferry.host.balloon import FILE, Before
from vferry.host.claims import Claims
from vferry.host.codecs import installed_codecs
from vferry.host.configuration import AgentConfiguration
from vferry.host.forwarding import parked
from vferry.host.handlers import Handlers
from vferry.host.handlers.parts import Parts
from vferry.host.hypervisor import Hypervisor
from vferry.host.migration_record import Record, save
from vferry.host.wire import operations
from vferry.model.guest import VfRef
from vferry.model.host import WIPED, Attachment, Bridge, Inventory, MigrationEndpoint, Network, VfSettings
from vferry.model.problem import Problem
from vferry.model.relay import Relay, RelayBridge, RelayGateway, RelayKind, RelayPort, RelayState, RelayUplink, RelayVf

MINE = Session(operation="op-1")
OTHERS = Session(operation="op-2")
SERVED_ELSEWHERE = {
    *(api.ClaimResources, api.ReleaseClaim, api.RequestCertificate, api.InstallCertificate),
    api.SetBinding,  # by OVN
}
VF = "0000:01:10.2"

FIRST = VfRef(pf="pf0", index=0, address="0000:01:10.0")

ACTING: list[Operation[Any]] = [
    api.PlugStandby(guest="guest1", mac=MAC, on=Attachment(device="br0"), alias="ua-x"),
    api.PlugVf(guest="guest1", address=VF, alias="ua-y"),
    api.PlugRelayed(guest="guest1", mac=MAC, alias="ua-z"),
    api.Unplug(guest="guest1", alias="ua-vf"),
    api.RunInGuest(guest="guest1", script=":"),
    api.SetVf(pf="pf0", index=1, settings=WIPED),
    api.HideMac(pf="pf0", index=1, mac=MAC, hidden=True),
    api.HideMac(pf="pf0", index=1, mac=MAC, hidden=False),
    api.SetMdev(guest="guest1", uuid=MDEV, kind="mtty-2", parent="mtty", present=True),
    api.SetForwarding(pf="pf0", mac=MAC, present=True),
    api.MoveFilter(pf="pf0", index=1, mac=MAC, to_vf=False, uplink="pf0"),
    api.Unpark(pf="pf0", index=1, mac=MAC),
    api.TeachBridge(guest="guest1", mac=MAC),
    api.Announce(guest="guest1", mac=MAC, interface="pf0"),
    api.ExpectGuest(guest="guest1"),
    api.PutConnections(guest="guest1", connections=(), lease_s=60),
    api.PutPortConnections(guest="guest1", mac=MAC, connections=()),
    api.StartReceiving(peer="host2"),
    api.StartSending(peer="host2", address="10.8.0.2", port=1, token="t"),
    api.StopGateway(),
    api.ReclaimFree(guest="guest1"),
    api.ReturnFree(guest="guest1"),
    api.StartMigration(guest="guest1", persistent_xml=""),
    api.AbortMigration(guest="guest1"),
    api.LimitMigration(guest="guest1", bandwidth=1),
    api.Define(xml=domain()),
    api.Undefine(guest="guest1"),
    api.Resume(guest="guest1"),
    api.Destroy(guest="guest1"),
    api.StretchPause(guest="guest1", downtime_ms=1000),
    api.Concede(guest="guest1"),
]
RELAY = Relay(operation="op-1", state=RelayState.ENABLING, kind=RelayKind.DIRECT, uplinks=("pf0",), cores=(1,), vfs=())
PORT = RelayPort(guest="guest1", mac=MAC, socket="/run/s", vf=RelayVf(pf="pf0", index=1, address=VF))
ACTING_ON_RELAY: list[Operation[Any]] = [
    api.KeepRelay(relay=RELAY),
    api.ForgetRelay(),
    api.SetHugePages(node=0, size_kib=2048, count=1),
    api.BindVf(address=VF, driver="vfio-pci"),
    api.SetSwitch(settings={"dpdk-init": "try"}),
    api.SetRelayBridge(bridge=RelayBridge(name="relay0", uplinks=(RelayUplink(name="up", address=VF),)), present=True),
    api.SetRelayGateway(
        gateway=RelayGateway(bridge="relay0", vlan=7, remote="192.0.2.9", key=7),
        present=True,
    ),
    api.JoinRelay(port=PORT, settings=VfSettings()),
    api.LeaveRelay(guest="guest1", mac=MAC),
    api.RejoinGuests(),
]
ACTING += ACTING_ON_RELAY
UNCLAIMED: list[Operation[Any]] = [
    api.LimitHost(bandwidth=100 << 20),
    api.RequestQemuCertificate(ca="PEM"),
    api.InstallQemuCertificate(certificate="PEM", ca="PEM"),
]
"""They change what is no operation's."""
LOOKING: list[Operation[Any]] = [
    api.TakeInventory(),
    api.ShowGuest(guest="guest1"),
    api.ReadGuestNetwork(guest="guest1"),
    api.MeasureGuest(guest="guest1", seconds=0.1),
    api.MeasureMemory(guest="guest1"),
    api.ReadConnections(addresses=("192.0.2.7",)),
    api.ReadPortConnections(guest="guest1", mac=MAC),
    api.ReadBlockers(guest="guest1"),
    api.ReadDefinition(guest="guest1"),
    api.CheckFit(live_xml=domain()),
    api.AskQemu(live_xml=domain()),
    api.AskDriver(pf="pf0"),
    api.ReadMigration(guest="guest1"),
    api.ReadRelay(),
]


class OneFrame:
    """A wire that goes down after one frame, so that nothing is repeated."""

    def __init__(self, sent: list[tuple[str, bytes]], interface: str) -> None:
        self.sent, self.interface = sent, interface

    def send(self, frame: bytes) -> int:
        if self.sent:
            raise OSError(errno.ENETDOWN, "down")
        self.sent.append((self.interface, frame))
        return len(frame)

    def close(self) -> None:
        pass


class EmptyTable:
    """Connection tracking that has seen nothing yet."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        pass

    def entries(self) -> tuple[bytes, ...]:
        return ()


class Host:
    """A host with a NIC of two VFs, a guest on the second, and a claim on both by `MINE`."""

    def __init__(self, root: Path) -> None:
        make_host(root)
        for path, text in {
            "proc/meminfo": "MemTotal:       16384 kB\nMemAvailable:    8192 kB\nHugePages_Total:       0\n",
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU\nmicrocode\t: 0x1\n\nprocessor\t: 1\n",
            "sys/class/net/pf0/speed": "10000\n",
            "sys/class/net/br0/flags": "0x1003\n",
            "sys/class/net/br0/bridge/vlan_filtering": "1\n",
            "sys/class/net/br0/brif/pf0": "",
            "sys/class/net/pf0/ifindex": f"{PF_INDEX}\n",
            "proc/sys/net/netfilter/nf_conntrack_count": "7\n",
            "dev/vhost-net": "",
            "sys/class/iommu/dmar0": "",
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        self.nic = FakeNic()
        self.guest = FakeDomain(live=domain(VF_INTERFACE + STANDBY), persistent=domain())
        self.library = FakeLibvirt(self.guest)
        self.claims = Claims(root / "claims", 2)
        self.claims.claim(MINE, "guest1", (VF,))
        self.root = root
        self.sent: list[tuple[str, bytes]] = []
        self.bandwidth: int | None = None
        self.handlers = self.new_handlers()

    def new_handlers(self) -> Handlers:
        root = self.root
        return Handlers(
            Parts(
                AgentConfiguration(
                    name="host1",
                    migration=MigrationEndpoint(address="127.0.0.1", ports=(49200, 49210), bandwidth=self.bandwidth),
                    cpu_share=0.25,
                    networks={"physnet1": Network(pf="pf0", bridge="br0")},
                ),
                self.claims,
                root,
                hypervisor=Hypervisor(library=self.library, agent_library=FakeAgents()),
                runtime=root / "run/vferry",
                root=root,
                links=lambda: cast("Any", FakeLinks(self.nic)),
                table=lambda: cast("Any", EmptyTable()),
                wire=lambda interface: OneFrame(self.sent, interface),
            )
        )

    async def ask(self, operation: Operation[Any], session: Session | None = MINE) -> Struct:
        return await self.handlers.handle(operation, session)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path)
    yield host
    host.handlers.close()


def test_every_operation_is_known() -> None:
    tested = {type(operation) for operation in (*ACTING, *UNCLAIMED, *LOOKING)}
    assert tested | SERVED_ELSEWHERE == set(operations().values())


@pytest.mark.parametrize("operation", ACTING, ids=lambda operation: type(operation).__name__)
@pytest.mark.parametrize("session", [None, OTHERS])
async def test_without_the_claim_nothing_is_changed(host: Host, operation: Operation[Any], session: Session) -> None:
    with pytest.raises(Problem) as caught:
        await host.ask(operation, session)
    assert caught.value.code == "not-claimed"
    assert host.guest.calls == []
    assert host.nic.packets == []
    assert host.sent == []


@pytest.mark.parametrize(
    "operation",
    [
        api.PlugVf(guest="guest1", address="0000:01:10.0", alias="ua-y"),
        api.SetVf(pf="pf0", index=0, settings=WIPED),
        api.HideMac(pf="pf0", index=0, mac=MAC, hidden=True),
        api.MoveFilter(pf="pf0", index=0, mac=MAC, to_vf=True, uplink="pf0"),
        api.MoveFilter(pf="pf0", index=1, mac=MAC, to_vf=True, uplink=None, other=FIRST),
        api.PlugRelayed(guest="guest2", mac=MAC, alias="ua-z"),
        api.Unplug(guest="guest2", alias="ua-vf"),
        api.PutConnections(guest="guest2", connections=()),
        api.Define(xml=domain(name="guest2")),
    ],
)
async def test_the_claim_is_on_this_guest_and_this_vf(host: Host, operation: Operation[Any]) -> None:
    with pytest.raises(Problem) as caught:
        await host.ask(operation)
    assert caught.value.code == "not-claimed"


async def test_looking_needs_no_claim(host: Host) -> None:
    for operation in LOOKING:
        if not isinstance(
            operation, api.ReadGuestNetwork | api.MeasureGuest | api.ReadMigration | api.ReadPortConnections
        ):
            await host.ask(operation, None)
    assert await host.ask(api.ReadMigration(guest="guest1"), OTHERS) == api.Migration()
    with pytest.raises(Problem, match="no port") as caught:
        await host.ask(api.ReadPortConnections(guest="guest1", mac=MAC), None)
    assert caught.value.code == "relay-not-joined"
    for operation in (api.ReadGuestNetwork(guest="guest1"), api.MeasureGuest(guest="guest1", seconds=0.1)):
        with pytest.raises(Problem) as caught:
            await host.ask(operation, None)
        assert caught.value.code == "guest-agent-silent"


@pytest.mark.parametrize(("uplink", "held"), [(None, True), ("pf0", False)])
async def test_the_bridge_holds_a_guest_at_its_port_and_learns_it_at_an_uplink(
    host: Host, monkeypatch: pytest.MonkeyPatch, uplink: str | None, *, held: bool
) -> None:
    asked: list[bool] = []

    def teach_bridge(*_: object, hold: bool) -> api.Done:
        asked.append(hold)
        return api.Done()

    monkeypatch.setattr("vferry.host.handlers.parts.teach_bridge", teach_bridge)
    await host.ask(api.TeachBridge(guest="guest1", mac=MAC, uplink=uplink))
    assert asked == [held]


async def test_operations_lead_to_what_they_mean(host: Host) -> None:
    assert await host.ask(api.SetForwarding(pf="pf0", mac=MAC, present=True)) == api.Done()
    assert host.nic.added == [MAC]
    await host.ask(api.SetForwarding(pf="pf0", mac=MAC, present=False))
    assert await host.ask(api.SetForwarding(pf="pf0", mac=MAC, present=True, arriving="guest1")) == api.Done()
    assert host.nic.added == []
    await host.ask(api.SetForwarding(pf="pf0", mac=MAC, present=True))
    assert await host.ask(api.SetVf(pf="pf0", index=1, settings=WIPED)) == api.Done(changed=False)
    await host.ask(api.MoveFilter(pf="pf0", index=1, mac=MAC, to_vf=True, uplink="pf0"))
    assert (host.nic.mac(1), host.nic.added) == (MAC, [])
    assert await host.ask(api.PlugVf(guest="guest1", address=VF, alias="ua-z")) == api.Done(changed=False)
    await host.ask(api.PlugStandby(guest="guest1", mac=MAC, on=Attachment(device="br0"), alias="ua-y"))
    await host.ask(api.Unplug(guest="guest1", alias="ua-y"))
    assert [call[0] for call in host.guest.calls] == ["attach", "detach"]
    assert await host.ask(api.TeachBridge(guest="guest1", mac=MAC)) == api.Done(changed=False)
    assert await host.ask(api.ExpectGuest(guest="guest1")) == api.Done(changed=False)
    await host.ask(api.Announce(guest="guest1", mac=MAC, interface="pf0"))
    assert host.sent == [("pf0", rarp(MAC))]
    assert await host.ask(api.ReadConnections(addresses=("192.0.2.7",))) == api.Tracked()
    assert await host.ask(api.PutConnections(guest="guest1", connections=())) == api.PutOutcome()
    assert await host.ask(api.StopGateway()) == api.GatewayStatistics()
    nothing = api.Done(changed=False, detail="nothing: it has no balloon")
    assert await host.ask(api.ReclaimFree(guest="guest1")) == nothing
    assert await host.ask(api.ReturnFree(guest="guest1")) == api.Done(changed=False)
    assert await host.ask(api.AbortMigration(guest="guest1")) == api.Done(changed=False)
    assert await host.ask(api.Resume(guest="guest1")) == api.Done(changed=False)
    with pytest.raises(Problem) as caught:
        await host.ask(api.Destroy(guest="guest1"))
    assert caught.value.code == "guest-running"


async def test_the_limit_of_a_host_is_set_for_good_and_wins_over_the_configuration(host: Host) -> None:
    async def endpoint() -> tuple[int | None, bool, int | None]:
        found = cast("Inventory", await host.ask(api.TakeInventory(), None)).migration
        return found.bandwidth, found.bandwidth_set, found.bandwidth_configured

    def restart() -> None:
        host.handlers.close()
        host.handlers = host.new_handlers()

    host.bandwidth = configured = 50 << 20
    restart()
    assert await endpoint() == (configured, False, configured)
    for bandwidth, held in ((100 << 20, 100 << 20), (0, None)):
        assert await host.ask(api.LimitHost(bandwidth=bandwidth), None) == api.Done()
        assert await host.ask(api.LimitHost(bandwidth=bandwidth), None) == api.Done(changed=False)
        assert await endpoint() == (held, True, configured)
        restart()
        assert await endpoint() == (held, True, configured), "also after a restart"
    with pytest.raises(Problem, match="less than 1 MiB/s for each of 2 slots") as caught:
        await host.ask(api.LimitHost(bandwidth=1), None)
    assert caught.value.code == "bandwidth-too-small"
    assert await host.ask(api.LimitHost(bandwidth=None), None) == api.Done()
    assert await endpoint() == (configured, False, configured)
    (host.root / "bandwidth.json").write_text("much")
    restart()
    assert await endpoint() == (configured, False, configured)


async def test_copies_that_run_keep_to_a_new_limit_at_once(host: Host) -> None:
    record = Record(operation="op-1", guest="guest1", uuid="u", started=0.0)
    save(host.root / "run/vferry/op-1", record)
    await host.ask(api.LimitHost(bandwidth=100 << 20), None)
    assert host.guest.calls == [("max-speed", 100)]
    host.guest.calls.clear()
    await host.ask(api.LimitHost(bandwidth=100 << 20), None)
    assert host.guest.calls == [("max-speed", 100)], "an agent that ended in between had told nobody"


async def test_a_vf_that_is_set_is_kept_from_no_mac_any_more(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vferry.host.hiding.LOOK_S", 0.01)
    hide = api.HideMac(pf="pf0", index=1, mac=MAC, hidden=True)
    assert [await host.ask(hide) for _ in range(2)] == [api.Done(), api.Done(changed=False)]
    await host.ask(api.SetVf(pf="pf0", index=1, settings=VfSettings()))
    assert await host.ask(hide) == api.Done()
    assert await host.ask(msgspec.structs.replace(hide, hidden=False)) == api.Done(changed=False)
    assert await host.ask(hide) == api.Done()
    await host.ask(msgspec.structs.replace(hide, hidden=False))
    for thread in threading.enumerate():
        if thread.name == f"hide-{MAC}":
            thread.join(5)


async def test_an_agent_that_is_started_anew_gives_a_guest_s_vf_its_mac(host: Host) -> None:
    net, device = host.root / "sys/class/net", (host.root / "sys/class/net/pf0/device/virtfn1").resolve()
    for path in (device / "physfn/net/pf0", device / "net/pf0v1", net / "pf0v1/upper_macvtap0"):
        path.mkdir(parents=True)
    (net / "pf0v1/device").symlink_to(device)
    (net / "pf0v1/upper_macvtap0/flags").write_text("0x1003\n")
    host.guest.live_xml = domain(MACVTAP)
    host.nic.set_address(parked(MAC))
    host.handlers.close()
    host.handlers = host.new_handlers()
    async with asyncio.timeout(10):
        while host.nic.mac(1) != MAC:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("by", ["ReturnFree", "a release", "a new agent"])
async def test_what_a_balloon_has_of_a_guest_s_memory_is_given_back(host: Host, by: str) -> None:
    file = host.root / "run/vferry/op-1" / FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(msgspec.json.encode(Before(guest="guest1", run=host.guest.run, period=0, held=0)))
    host.guest.balloon.actual = host.guest.balloon.target = 1 << 16
    if by == "ReturnFree":
        assert await host.ask(api.ReturnFree(guest="guest1")) == api.Done()
    elif by == "a release":
        await host.handlers.released("op-1")
    else:
        host.handlers.close()
        host.handlers = host.new_handlers()
    async with asyncio.timeout(10):
        while file.exists():
            await asyncio.sleep(0.01)
    assert host.guest.balloon.actual == host.guest.balloon.memory


async def test_the_source_of_a_migration_is_never_destroyed(host: Host) -> None:
    from vferry.host.migration_record import Record, save

    save(host.claims.directory.parent / "run/vferry/op-1", Record(operation="op-1", guest="guest1", uuid="", started=0))
    host.guest.state_ = (3, 2)
    with pytest.raises(Problem) as caught:
        await host.ask(api.Destroy(guest="guest1"))
    assert caught.value.code == "guest-not-incoming"
    assert host.guest.live_xml


async def test_whose_vf_it_is(host: Host) -> None:
    assert await host.handlers.users_of((VF, "0000:01:10.0")) == {VF: "guest1"}


async def test_what_an_operation_left_is_ended(host: Host) -> None:
    directory = host.claims.directory.parent / "run/vferry/op-1"
    directory.mkdir(parents=True)
    await host.handlers.released("op-1")
    assert not directory.exists()
    await host.handlers.released("op-1")
    await host.handlers.released("../claims")
    assert host.claims.directory.exists()


async def test_the_inventory(host: Host) -> None:
    host.nic.vfs[1]["IFLA_VF_MAC"] = {"mac": MAC}
    inventory = await host.ask(api.TakeInventory(), None)
    assert isinstance(inventory, Inventory)
    assert inventory.name == "host1"
    assert (inventory.versions.qemu, inventory.versions.libvirt) == ((11, 1, 3), (11, 3, 0))
    assert (inventory.versions.microcode, inventory.versions.cpu_model) == ("0x1", "Some CPU")
    assert (inventory.memory_total, inventory.memory_free) == (16 << 20, 8 << 20)
    assert (inventory.cpus, inventory.cpu_share) == (2, 0.25)
    assert inventory.vhost_net
    assert inventory.iommu
    assert inventory.connections == 7
    assert inventory.link_rate == 1_250_000_000
    assert inventory.codecs == installed_codecs(host.claims.directory.parent)
    bridge = Bridge(name="br0", ports=("pf0",), up=True, vlan_filtering=True, vlans={"pf0": (1, 7)})
    assert inventory.bridges == (bridge,)
    vf = inventory.vf(VF)
    assert vf is not None
    assert (vf.guest, vf.claim, vf.settings.mac) == ("guest1", "op-1", MAC)
    free = inventory.vf("0000:01:10.0")
    assert free is not None
    assert (free.guest, free.claim) == (None, None)
    guest = inventory.guest("guest1")
    assert guest is not None
    assert [nic.model for nic in guest.nics] == ["hostdev", "virtio"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"machine_error": "the machine 'pc-q35-99' is not supported."}, "machine type pc-q35-10.0 (kvm) cannot run"),
        ({"cpu_error": "guest CPU doesn't match: missing features: avx512f"}, "missing features: avx512f"),
    ],
)
async def test_what_a_destination_cannot_take(host: Host, change: dict[str, str], reason: str | None) -> None:
    root = host.claims.directory.parent
    for path in ("usr/bin/qemu-system-x86_64", "boot/vmlinuz", "usr/share/OVMF/OVMF_CODE.fd", "srv/guest1.qcow2"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("")
    for name, value in change.items():
        setattr(host.library, name, value)
    cpu = "<cpu mode='custom' match='exact'><model>EPYC</model></cpu>"
    fit = await host.ask(api.CheckFit(live_xml=domain(STANDBY, cpu=cpu)), None)
    assert isinstance(fit, api.Fit)
    assert [reason in found for found in fit.reasons] == [True] if reason else fit.reasons == ()


@pytest.mark.parametrize(
    ("said", "off"),
    [
        (None, False),
        ("#keepalive_interval = -1\n", False),
        ("keepalive_interval = 5\n", False),
        ("user = 'root'\n  keepalive_interval=-1 # held by vferry\n", True),
    ],
)
async def test_libvirts_own_keepalive(host: Host, said: str | None, *, off: bool) -> None:
    path = host.claims.directory.parent / "etc/libvirt/qemu.conf"
    path.parent.mkdir(parents=True)
    if said is not None:
        path.write_text(said)
    inventory = await host.ask(api.TakeInventory(), None)
    assert isinstance(inventory, Inventory)
    assert inventory.keepalive_off is off


async def test_files_and_bridges_must_be_there(host: Host) -> None:
    nics = STANDBY.replace("br0", "br9") + (
        "<interface type='network'><mac address='52:54:00:00:00:01'/><source network='default'/></interface>"
    )
    fit = await host.ask(api.CheckFit(live_xml=domain(nics)), None)
    assert isinstance(fit, api.Fit)
    wanted = ("qemu-system-x86_64", "/srv/guest1.qcow2", "/boot/vmlinuz", "OVMF_CODE.fd", "br9", "default")
    assert len(fit.reasons) == len(wanted)
    assert all(any(word in reason for reason in fit.reasons) for word in wanted)


async def test_a_driver_is_asked_what_it_lacks(host: Host) -> None:
    host.nic.lacks = {"IFLA_VF_RATE"}
    found = await host.ask(api.AskDriver(pf="pf0"), None)
    assert found == api.DriverAbilities(lacks=("min_tx_rate", "max_tx_rate"))
    with pytest.raises(Problem) as caught:
        await host.ask(api.AskDriver(pf="gone"), None)
    assert caught.value.code == "interface-unknown"


async def test_a_driver_is_not_asked_of_the_first_vf_where_nobody_says_how_many_there_are(
    host: Host, tmp_path: Path
) -> None:
    host.nic.vfs[0]["IFLA_VF_VLAN"] = {"vlan": 7, "qos": 0}
    (tmp_path / "sys/class/net/pf0/device/sriov_totalvfs").unlink()
    assert await host.ask(api.AskDriver(pf="pf0"), None) == api.DriverAbilities()
    assert host.nic.vfs[0]["IFLA_VF_VLAN"] == {"vlan": 7, "qos": 0}


async def test_a_guest_on_a_network_of_libvirts_needs_that_network_and_not_its_bridge(host: Host) -> None:
    said = "the libvirt network default of NIC"
    without = await host.ask(api.CheckFit(live_xml=domain(ON_NETWORK)), None)
    assert isinstance(without, api.Fit)
    assert sum(said in reason for reason in without.reasons) == 1
    host.library.networks.add("default")
    fit = await host.ask(api.CheckFit(live_xml=domain(ON_NETWORK)), None)
    assert isinstance(fit, api.Fit)
    assert set(without.reasons) - set(fit.reasons) == {f"{said} {MAC} is not active on this host"}


async def test_what_a_network_has_given_a_guest_must_be_there_by_its_own_name(host: Host) -> None:
    for nic, what in ((ON_NETWORK_OVS, "the bridge ovs0"), (ON_NETWORK_MACVTAP, "the interface pf0v1")):
        fit = await host.ask(api.CheckFit(live_xml=domain(nic)), None)
        assert isinstance(fit, api.Fit)
        assert f"{what} of NIC {MAC} is not on this host" in fit.reasons


async def test_the_network_of_which_a_vf_comes_must_be_there(host: Host) -> None:
    pooled = "<interface type='network'><mac address='52:54:00:00:00:01'/><source network='{}'/></interface>"
    fit = await host.ask(api.CheckFit(live_xml=domain(), persistent_xml=domain(pooled.format("vfs"))), None)
    assert isinstance(fit, api.Fit)
    assert [reason for reason in fit.reasons if "network vfs, from which NIC 52:54:00:00:00:01 comes" in reason]
    without = await host.ask(api.CheckFit(live_xml=domain(), persistent_xml=domain()), None)
    assert isinstance(without, api.Fit)
    assert len(without.reasons) == len(fit.reasons) - 1


@pytest.mark.parametrize(("rewired", "missing"), [((), True), ((MAC,), False), (("52:54:00:00:00:01",), True)])
async def test_a_macvtap_that_is_put_elsewhere_need_not_find_its_interface(
    host: Host, rewired: tuple[str, ...], *, missing: bool
) -> None:
    fit = await host.ask(api.CheckFit(live_xml=domain(MACVTAP), rewired=rewired), None)
    assert isinstance(fit, api.Fit)
    assert any("the interface pf0v1" in reason for reason in fit.reasons) == missing


async def test_a_cpu_passed_through_is_not_compared_here(host: Host) -> None:
    host.library.cpu_error = "it differs"
    (host.claims.directory.parent / "usr/bin").mkdir(parents=True)
    (host.claims.directory.parent / "usr/bin/qemu-system-x86_64").write_text("")
    fit = await host.ask(api.CheckFit(live_xml=domain(cpu="<cpu mode='host-passthrough'/>")), None)
    assert isinstance(fit, api.Fit)
    assert not any("differs" in reason for reason in fit.reasons)


async def test_a_relay_is_kept_by_the_operation_that_has_its_vfs(host: Host) -> None:
    with_vf = msgspec.structs.replace(RELAY, vfs=(RelayVf(pf="pf0", index=1, address=VF),))
    assert (await host.ask(api.KeepRelay(relay=with_vf))) == api.Done(detail="enabling")
    inventory = await host.ask(api.TakeInventory(), None)
    assert isinstance(inventory, Inventory)
    assert inventory.relay == with_vf
    another = RelayVf(pf="pf0", index=0, address="0000:01:10.0")
    with pytest.raises(Problem) as caught:
        await host.ask(api.KeepRelay(relay=msgspec.structs.replace(RELAY, vfs=(another,))))
    assert caught.value.code == "not-claimed"
    with pytest.raises(Problem) as caught:
        await host.ask(api.KeepRelay(relay=msgspec.structs.replace(RELAY, operation="op-2")))
    assert caught.value.code == "relay-anothers"
    assert await host.ask(api.ForgetRelay()) == api.Done()
    assert await host.ask(api.ForgetRelay()) == api.Done(changed=False)


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (api.SetHugePages(node=0, size_kib=2048, count=1), "huge-pages-refused"),
        (api.SetSwitch(settings={}), "switch-silent"),
        (ACTING_ON_RELAY[5], "switch-silent"),
        (ACTING_ON_RELAY[6], "relay-missing"),
    ],
)
async def test_a_relay_s_operations_say_what_is_missing(
    host: Host, operation: Operation[Any], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vferry.host.ovsdb.TIMEOUT_S", 0.05)
    with pytest.raises(Problem) as caught:
        await host.ask(operation)
    assert caught.value.code == code


async def test_a_relay_that_cannot_be_read_stops_no_migration(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    (host.claims.directory.parent / "relay.json").write_text("{")
    inventory = await host.ask(api.TakeInventory(), None)
    assert isinstance(inventory, Inventory)
    assert inventory.relay is None
    assert "of the relay cannot be read" in caplog.text
    for attempt in (host.ask(api.KeepRelay(relay=RELAY)), host.ask(api.ReadRelay()), host.handlers.started()):
        with pytest.raises(Problem) as caught:
            await attempt
        assert caught.value.code == "relay-unreadable"
