"""Guests' NICs on a direct relay, through the agent's handlers: joined, kept, and taken off again."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_libvirt import FakeDomain
from msgspec.json import encode
from msgspec.structs import replace
from ovs_database import transact
from relay_host import MINE, MOVING, OTHERS, VFS, Host, refused, running
from xml_samples import VHOSTUSER, domain

from vferry.host import api
from vferry.host.api import JoinRelay, LeaveRelay, SetVf
from vferry.host.ovsdb import SOCKET
from vferry.host.relay_restore import Restoring
from vferry.host.service import Service
from vferry.model.host import NO_MAC, Inventory, VfSettings
from vferry.model.problem import Problem
from vferry.model.relay import RelayPort, RelayState, RelayVf
from vferry.plan import relay_release

MAC = "52:54:00:aa:00:0b"
NAMES = ["vfr525400aa000b"]
VF = RelayVf(pf="pf0", index=1, address=VFS[1])
PORT = RelayPort(guest="guest1", mac=MAC, socket="/run/vferry/guest1.sock", vf=VF)
SETTINGS = VfSettings(mac=MAC, trust=True)
JOIN, LEAVE = JoinRelay(port=PORT, settings=SETTINGS), LeaveRelay(guest="guest1", mac=MAC)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    """A host with a direct relay, which a guest is on its way to: its second VF is claimed for it."""
    with running(tmp_path) as host:
        await host.enable(switched=False)
        host.claims.claim(MOVING, "guest1", (VFS[1],))
        yield host


def driver(host: Host, vf: str = VFS[1]) -> str | None:
    path = host.pci / "devices" / vf / "driver"
    return path.readlink().name if path.exists() else None


async def test_a_nic_there_and_back(host: Host) -> None:
    before = host.state()
    assert await host.ask(JOIN, MOVING) == api.Done(detail=VFS[1])
    assert (host.state()["bridges"], driver(host)) == (NAMES, "vfio-pci")
    assert not (await host.ask(JOIN, MOVING)).changed
    assert await host.ask(LEAVE, MOVING) == api.Done(detail=VFS[1])
    assert not (await host.ask(LEAVE, MOVING)).changed
    assert host.state() == before


async def test_a_nic_is_plugged_where_the_relay_can_connect_to_it(host: Host) -> None:
    """QEMU waits for that, with all of the guest's other devices."""
    plug = api.PlugRelayed(guest="guest1", mac=MAC, alias="ua-relay")
    assert await refused(host, plug) == "relay-not-joined"
    host.switch.broken.add(VFS[1])
    assert await refused(host, JOIN) == "port-refused"
    assert await refused(host, plug) == "port-refused"
    host.switch.broken.clear()
    host.library.add(FakeDomain(live=domain()))
    assert await refused(host, plug) == "memory-not-shared"
    assert host.state()["bridges"] == NAMES
    guest = host.library.domains["guest1"]
    shared = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking><devices>"
    guest.live_xml = domain().replace("<devices>", shared)
    assert (await host.ask(plug, MOVING)).changed
    assert PORT.socket in guest.live_xml


@pytest.mark.parametrize("goes_on", [False, True])
async def test_one_that_is_half_joined_is_gone_on_with_or_taken_off(host: Host, *, goes_on: bool) -> None:
    """Who asks again has seen the VF with the driver of the relay; it gets back the one that it had at first."""
    before = host.state()
    host.switch.broken.add(VFS[1])
    assert await refused(host, JOIN) == "port-refused"
    assert (await relay_ports(host), driver(host)) == ((PORT,), "vfio-pci")
    host.restart()
    host.switch.broken.clear()
    if goes_on:
        again = replace(JOIN, port=replace(PORT, vf=replace(VF, driver="vfio-pci")))
        assert (await host.ask(again, MOVING)).changed
        assert host.state()["bridges"] == NAMES
        assert await relay_ports(host) == (PORT,)
    await host.ask(LEAVE, MOVING)
    assert await relay_ports(host) == ()
    assert host.state() == before


async def relay_ports(host: Host) -> tuple[RelayPort, ...]:
    relay = (await host.inventory()).relay
    assert relay is not None
    return relay.ports


async def test_another_vf_or_another_guest_is_not_joined_by_the_same_mac(host: Host) -> None:
    await host.ask(JOIN, MOVING)
    made = host.state()
    host.claims.claim(OTHERS, "guest2", (VFS[0],))
    another_vf = replace(PORT, guest="guest2", vf=replace(VF, index=0, address=VFS[0]))
    assert await refused(host, replace(JOIN, port=another_vf), OTHERS) == "relay-joined"
    assert await refused(host, replace(LEAVE, guest="guest2"), OTHERS) == "relay-joined"
    host.claims.release(OTHERS)
    assert host.state() == made


@pytest.mark.parametrize("wanted", [replace(PORT, guest="guest2"), replace(PORT, vf=replace(VF, address=VFS[0]))])
async def test_a_nic_is_joined_by_whom_has_the_guest_and_the_vf(host: Host, wanted: RelayPort) -> None:
    before = host.state()
    assert await refused(host, replace(JOIN, port=wanted)) == "not-claimed"
    assert await refused(host, replace(LEAVE, guest="guest2")) == "not-claimed"
    assert host.state() == before


@pytest.mark.parametrize("gone", [False, True])
async def test_without_a_relay_nothing_is_joined_and_what_is_comes_off(host: Host, *, gone: bool) -> None:
    await host.ask(JOIN, MOVING)
    relay, path = (await host.inventory()).relay, host.root / "state/relay.json"
    assert relay is not None
    path.write_bytes(encode(replace(relay, state=RelayState.DISABLING, ports=())))
    if gone:
        path.unlink()
    assert await refused(host, JOIN) == "relay-missing"
    await host.ask(LEAVE, MOVING)
    assert (host.state()["bridges"], driver(host)) == ([], None)
    assert await refused(host, JOIN) == "relay-missing"
    assert (host.state()["bridges"], driver(host)) == ([], None)


async def test_a_relay_that_a_guest_is_on_is_not_taken_back(host: Host) -> None:
    """Nor begun to be: whoever asked has looked before the guest came."""
    await host.ask(JOIN, MOVING)
    relay = (await host.inventory()).relay
    assert relay is not None
    before = host.state()
    assert await refused(host, api.KeepRelay(relay=replace(relay, state=RelayState.DISABLING)), MINE) == "relay-in-use"
    assert await refused(host, api.ForgetRelay(), MINE) == "relay-in-use"
    assert host.state() == before


async def test_who_is_refused_for_a_port_is_told_how_it_goes_where_no_guest_has_it(host: Host) -> None:
    await host.ask(JOIN, MOVING)
    host.claims.claim(OTHERS, "guest2")
    for operation, session in ((api.ForgetRelay(), MINE), (replace(LEAVE, guest="guest2"), OTHERS)):
        with pytest.raises(Problem) as caught:
            await host.ask(operation, session)
        assert f"vferry relay release HOST {MAC}" in caught.value.remedy


async def test_a_port_whose_guest_is_gone_comes_off_by_its_plan(host: Host) -> None:
    await host.ask(SetVf(pf="pf0", index=1, settings=SETTINGS), MOVING)
    await host.ask(JOIN, MOVING)
    host.claims.release(MOVING)
    found = relay_release.assess_release(await host.inventory(), MAC)
    mine = api.Session(operation=relay_release.operation_of(PORT))
    host.claims.claim(mine, "guest1", (VFS[1],), slot=False)
    for step in found.steps:
        for operation in step.apply:
            await host.ask(operation, mine)
    inventory = await host.inventory()
    assert relay_release.assess_release(inventory, MAC).port is None
    vf = inventory.vf(VFS[1])
    assert vf is not None
    assert (vf.guest, vf.settings.mac, vf.settings.trust) == (None, NO_MAC, False)
    assert (host.state()["bridges"], driver(host)) == ([], None)


@pytest.mark.parametrize("text", ["", "{", "{}", '[{"port": {}}]'])
async def test_what_cannot_be_read_is_not_guessed(host: Host, caplog: pytest.LogCaptureFixture, text: str) -> None:
    await host.ask(JOIN, MOVING)
    made = host.state()
    (host.root / "state/relay-ports.json").write_text(text)
    assert await refused(host, JOIN) == await refused(host, LEAVE) == "relay-unreadable"
    with pytest.raises(Problem) as caught:
        await host.handlers.users_of((VFS[1],))
    assert caught.value.code == "relay-unreadable"
    assert (await host.inventory()).relay is None
    assert "of the relay's guests cannot be read" in caplog.text
    assert host.state() == made


async def test_a_host_that_is_booted_has_its_guests_ports_and_their_settings_again(host: Host) -> None:
    await host.ask(JOIN, MOVING)
    await host.ask(SetVf(pf="pf0", index=1, settings=SETTINGS), MOVING)
    made = host.state()
    host.boot()
    drop = {"op": "update", "table": "Open_vSwitch", "where": [], "row": {"bridges": ["set", []]}}
    transact(host.root / SOCKET, drop)
    assert (host.state()["bridges"], host.nic.mac(1)) == ([], NO_MAC)
    host.restart()
    await host.handlers.started()
    assert host.state() == made
    assert await relay_ports(host) == (PORT,)


async def test_an_agent_that_is_started_anew_leaves_what_was_set_since(host: Host) -> None:
    await host.ask(JOIN, MOVING)
    await host.ask(SetVf(pf="pf0", index=1, settings=SETTINGS), MOVING)
    await host.ask(SetVf(pf="pf0", index=1, settings=VfSettings(vlan=7)), MOVING)
    made = host.state()
    host.restart()
    await host.handlers.started()
    assert host.state() == made


CLOSE = SetVf(pf="pf0", index=1, settings=VfSettings(mac=NO_MAC))
"""What a move does to the VF that its guest has left, which stays on the relay for a while."""


async def test_a_guest_that_has_left_its_vf_has_its_mac_elsewhere(host: Host) -> None:
    """The agent is started anew in the middle of its move, and the relay made whole."""
    await host.ask(JOIN, MOVING)
    await host.ask(SetVf(pf="pf0", index=1, settings=SETTINGS), MOVING)
    await host.ask(CLOSE, MOVING)
    host.restart()
    await host.handlers.started()
    assert host.nic.mac(1) == NO_MAC
    await host.ask(api.RejoinGuests())
    assert host.nic.mac(1) == NO_MAC


@pytest.mark.parametrize("booted", [False, True], ids=["kept by an older agent", "booted"])
async def test_a_vf_gets_its_settings_back_once(host: Host, *, booted: bool) -> None:
    await host.ask(JOIN, MOVING)
    if booted:
        host.boot()
    else:
        (host.root / "state/relay-ports.json").write_bytes(encode([JOIN]))
    host.restart()
    await host.handlers.started()
    assert host.nic.mac(1) == MAC
    await host.ask(CLOSE, MOVING)
    host.restart()
    await host.handlers.started()
    assert host.nic.mac(1) == NO_MAC
    assert await relay_ports(host) == (PORT,)


@pytest.mark.parametrize(
    ("since", "mac"),
    [
        ((CLOSE,), NO_MAC),
        ((CLOSE, SetVf(pf="pf0", index=1, settings=SETTINGS)), MAC),
        ((CLOSE, SetVf(pf="pf0", index=1, settings=SETTINGS, arriving="guest1")), NO_MAC),
        ((SetVf(pf="pf0", index=1, settings=VfSettings(vlan=7)),), MAC),
        ((SetVf(pf="pf0", index=0, settings=VfSettings(mac=NO_MAC)),), MAC),
    ],
)
async def test_after_a_boot_a_vf_has_the_mac_that_was_left_to_it(
    host: Host, since: tuple[SetVf, ...], mac: str
) -> None:
    """The guest may have gone, and its port not yet: who sends to it on this NIC would send to nobody."""
    host.claims.claim(OTHERS, "guest2", (VFS[0],))
    await host.ask(JOIN, MOVING)
    for each in since:
        await host.ask(each, OTHERS if each.index == 0 else MOVING)
    host.boot()
    host.restart()
    await host.handlers.started()
    assert host.nic.mac(1) == mac
    assert (await relay_ports(host), driver(host)) == ((PORT,), "vfio-pci")


async def test_a_vf_that_was_made_anew_has_its_guests_mac_again(host: Host) -> None:
    """The PF had no VFs for a moment, in the same boot."""
    await host.ask(JOIN, MOVING)
    await host.ask(SetVf(pf="pf0", index=1, settings=SETTINGS), MOVING)
    made = host.state()
    boot_id = (host.root / "proc/sys/kernel/random/boot_id").read_text()
    host.boot()
    (host.root / "proc/sys/kernel/random/boot_id").write_text(boot_id)
    host.restart()
    await host.handlers.started()
    assert host.state() == made


async def test_a_guest_that_is_on_its_way_has_its_mac_elsewhere_yet(host: Host) -> None:
    """Guests of this host would not reach it where it is."""
    await host.ask(replace(JOIN, settings=VfSettings(trust=True)), MOVING)
    host.restart()
    await host.handlers.started()
    assert host.nic.mac(1) == NO_MAC


async def test_what_is_no_vf_any_more_is_forgotten_all_the_same(host: Host) -> None:
    await host.ask(JOIN, MOVING)
    device = host.pci / "devices" / VFS[1]
    device.rename(device.with_name("gone"))
    assert (await host.ask(LEAVE, MOVING)).changed
    assert await relay_ports(host) == ()


async def test_what_is_taken_off_meanwhile_is_not_put_back(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent answers controllers while it puts back what a restart has taken away."""
    await host.ask(JOIN, MOVING)
    host.restart()
    works = Restoring._works

    def late(*arguments: Any) -> Iterator[Any]:
        found = list(works(*arguments))
        host.handlers.parts.ports.leave(LEAVE)
        yield from found

    monkeypatch.setattr(Restoring, "_works", late)
    await host.handlers.started()
    assert (host.state()["bridges"], driver(host), host.nic.mac(1)) == ([], None, NO_MAC)
    assert await relay_ports(host) == ()


async def test_one_port_that_cannot_be_had_again_keeps_no_other(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    other = RelayPort(guest="guest2", mac="52:54:00:aa:00:0c", socket="/x", vf=replace(VF, index=0, address=VFS[0]))
    host.claims.claim(OTHERS, "guest2", (VFS[0],))
    await host.ask(JOIN, MOVING)
    await host.ask(JoinRelay(port=other, settings=VfSettings()), OTHERS)
    host.boot()
    (host.pci / "devices" / VFS[1] / "physfn").unlink()
    await host.handlers.started()
    assert f"port {MAC} of guest guest1 is not as it was" in caplog.text
    assert (driver(host), driver(host, VFS[0])) == (None, "vfio-pci")


async def test_made_whole_again_the_relay_has_all_ports_that_it_can(host: Host) -> None:
    """And says what it has not; the agent goes on all the time."""
    other = RelayPort(guest="guest2", mac="52:54:00:aa:00:0c", socket="/x", vf=replace(VF, index=0, address=VFS[0]))
    host.claims.claim(OTHERS, "guest2", (VFS[0],))
    await host.ask(JOIN, MOVING)
    await host.ask(SetVf(pf="pf0", index=1, settings=SETTINGS), MOVING)
    await host.ask(JoinRelay(port=other, settings=VfSettings()), OTHERS)
    made = host.state()
    drop = {"op": "update", "table": "Open_vSwitch", "where": [], "row": {"bridges": ["set", []]}}
    transact(host.root / SOCKET, drop)
    host.switch.broken.add(VFS[1])
    with pytest.raises(Problem) as caught:
        await host.enable(switched=False)
    assert (caught.value.code, len(host.state()["bridges"])) == ("port-refused", 1)
    host.switch.broken.clear()
    await host.enable(switched=False)
    assert host.state() == made


async def test_its_vf_is_its_guests(host: Host) -> None:
    """In the inventory, and for whoever claims it, whether the guest runs yet or not."""
    for running_here in (False, True):
        if running_here:
            host.library.add(FakeDomain(live=domain(VHOSTUSER)))
        await host.ask(JOIN, MOVING)
        host.claims.release(MOVING)
        inventory = await host.inventory()
        assert [vf.guest for vf in inventory.pfs[0].vfs] == [None, "guest1"]
        assert await host.handlers.users_of(VFS) == {VFS[1]: "guest1"}
        service = Service("host1", host.claims, host.handlers, host.root)
        with pytest.raises(Problem) as caught:
            await service.handle(api.ClaimResources(guest="guest2", vfs=(VFS[1],)), OTHERS)
        assert caught.value.code == "vf-in-use"
        await service.handle(api.ClaimResources(guest="guest1", vfs=(VFS[1],)), MOVING)
    assert nics_of(inventory) == [(VFS[1], PORT.socket, True)]
    shown = await host.ask(api.ShowGuest(guest="guest1"), None)
    assert shown.nics == inventory.guests[0].nics


def nics_of(inventory: Inventory) -> list[tuple[str | None, str | None, bool]]:
    nics = (nic for guest in inventory.guests for nic in guest.nics)
    return [(nic.vf.address if nic.vf else None, nic.socket, nic.relayed) for nic in nics]


async def test_who_changes_the_relay_leaves_its_ports(host: Host) -> None:
    await host.ask(JOIN, MOVING)
    relay = (await host.inventory()).relay
    assert relay is not None
    for ports in ((), (replace(PORT, mac="52:54:00:aa:00:0c"),)):
        await host.ask(api.KeepRelay(relay=replace(relay, ports=ports)), MINE)
        assert await relay_ports(host) == (PORT,)
    assert (await host.ask(api.ReadRelay(), None)).relay == relay


async def test_a_mac_waits_for_its_guest(host: Host) -> None:
    await host.ask(JOIN, MOVING)
    await host.ask(SetVf(pf="pf0", index=1, settings=SETTINGS, arriving="guest1"), MOVING)
    assert (host.nic.mac(1), host.nic.vfs[1]["IFLA_VF_TRUST"]) == (NO_MAC, {"trust": 1})
    await host.ask(SetVf(pf="pf0", index=1, settings=SETTINGS), MOVING)
    assert host.nic.mac(1) == MAC
