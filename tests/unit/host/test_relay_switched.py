"""Guests' NICs on a switched relay, through the agent's handlers: ports of its bridge, made, kept, and taken off."""

import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fake_libvirt import FakeDomain
from msgspec.json import encode
from msgspec.structs import replace
from ovs_database import transact
from relay_host import MINE, MOVING, OTHERS, VFS, Host, refused, running
from xml_samples import STANDBY, VF_INTERFACE, VHOSTUSER, domain

from vferry.host import api
from vferry.host.announcement import rarp
from vferry.host.api import JoinRelay, LeaveRelay
from vferry.host.ovsdb import SOCKET
from vferry.model.ovn import Chassis
from vferry.model.relay import ChainPlace, RelayPort, RelayState, RelayVf, SwitchPlace

MAC, OTHER_MAC = "52:54:00:aa:00:0b", "52:54:00:aa:00:0c"
NAME = "vfg525400aa000b"
PLACE = SwitchPlace(bridge="relay0", vlan=42, max_tx_rate=500)
PORT = RelayPort(guest="guest1", mac=MAC, socket="/run/vferry/guest1.sock", switch=PLACE, mtu=1400)
JOIN, LEAVE = JoinRelay(port=PORT), LeaveRelay(guest="guest1", mac=MAC)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    """A host with a switched relay, which a guest is on its way to."""
    with running(tmp_path) as host:
        await host.enable(switched=True)
        host.claims.claim(MOVING, "guest1")
        yield host


def rows(host: Host, table: str, name: str, *columns: str) -> list[dict[str, Any]]:
    where = [["name", "==", name]]
    select = {"op": "select", "table": table, "where": where, "columns": list(columns)}
    found: list[dict[str, Any]] = transact(host.root / SOCKET, select)[0]["rows"]
    return found


def port_names(host: Host) -> list[str]:
    (answer,) = transact(host.root / SOCKET, {"op": "select", "table": "Port", "where": [], "columns": ["name"]})
    return sorted(row["name"] for row in answer["rows"])


async def relay_ports(host: Host) -> tuple[RelayPort, ...]:
    relay = (await host.inventory()).relay
    assert relay is not None
    return relay.ports


async def test_a_nic_there_and_back(host: Host) -> None:
    before = host.state()
    assert await host.ask(JOIN, MOVING) == api.Done(detail="relay0")
    assert not (await host.ask(JOIN, MOVING)).changed
    assert port_names(host) == ["relay0", "relay0-up0", NAME]
    assert rows(host, "Port", NAME, "tag", "vlan_mode") == [{"tag": 42, "vlan_mode": "access"}]
    (interface,) = rows(
        host, "Interface", NAME, "type", "options", "mtu_request", "ingress_policing_rate", "ingress_policing_burst"
    )
    assert interface == {
        "type": "dpdkvhostuserclient",
        "options": ["map", [["vhost-server-path", PORT.socket]]],
        "mtu_request": 1400,
        "ingress_policing_rate": 500_000,
        "ingress_policing_burst": 400_000,
    }
    assert await host.ask(LEAVE, MOVING) == api.Done(detail="relay0")
    assert not (await host.ask(LEAVE, MOVING)).changed
    assert host.state() == before
    assert port_names(host) == ["relay0", "relay0-up0"]


async def test_without_a_vlan_and_a_rate_it_passes_all(host: Host) -> None:
    await host.ask(JoinRelay(port=replace(PORT, switch=SwitchPlace(bridge="relay0"))), MOVING)
    assert rows(host, "Port", NAME, "tag", "vlan_mode") == [{"tag": ["set", []], "vlan_mode": ["set", []]}]
    assert rows(host, "Interface", NAME, "ingress_policing_rate") == [{"ingress_policing_rate": 0}]


@pytest.mark.parametrize(
    "place", [replace(PLACE, vlan=0), replace(PLACE, vlan=7), replace(PLACE, max_tx_rate=0)], ids=str
)
async def test_asked_for_otherwise_it_is_made_so_while_its_guest_uses_it(host: Host, place: SwitchPlace) -> None:
    await host.ask(JOIN, MOVING)
    (before,) = rows(host, "Port", NAME, "_uuid", "interfaces")
    assert (await host.ask(JoinRelay(port=replace(PORT, switch=place)), MOVING)).changed
    assert rows(host, "Port", NAME, "tag") == [{"tag": place.vlan or ["set", []]}]
    assert rows(host, "Interface", NAME, "ingress_policing_rate") == [
        {"ingress_policing_rate": 1000 * place.max_tx_rate}
    ]
    assert await relay_ports(host) == (replace(PORT, switch=place),)
    assert rows(host, "Port", NAME, "_uuid", "interfaces") == [before]


async def test_a_port_on_another_socket_is_made_anew(host: Host) -> None:
    await host.ask(JOIN, MOVING)
    (before,) = rows(host, "Port", NAME, "_uuid")
    assert (await host.ask(JoinRelay(port=replace(PORT, socket="/run/vferry/other.sock")), MOVING)).changed
    assert rows(host, "Port", NAME, "_uuid") != [before]


async def test_its_place_in_a_chain_is_kept(host: Host) -> None:
    chain = ChainPlace(name="web", serves=False, within=True, vlan=42)
    led = replace(PORT, switch=replace(PLACE, vlan=901, chain=chain))
    await host.ask(JOIN, MOVING)
    assert (await host.ask(JoinRelay(port=led), MOVING)).changed
    host.restart()
    assert await relay_ports(host) == (led,)
    drop = {"op": "update", "table": "Open_vSwitch", "where": [], "row": {"bridges": ["set", []]}}
    transact(host.root / SOCKET, drop)
    await host.handlers.started()
    assert rows(host, "Port", NAME, "tag", "vlan_mode") == [{"tag": 901, "vlan_mode": "access"}]
    await host.ask(JOIN, MOVING)
    assert await relay_ports(host) == (PORT,)


async def test_a_switch_that_is_silent_has_its_port_in_the_chain_s_vlan_once_it_speaks(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    await host.ask(JOIN, MOVING)
    monkeypatch.setattr("vferry.host.ovsdb.TIMEOUT_S", 0.3)
    host.switch.deaf = True
    assert await refused(host, JoinRelay(port=replace(PORT, switch=replace(PLACE, vlan=901)))) == "switch-silent"
    host.switch.deaf = False
    await host.ask(JOIN, MOVING)
    assert rows(host, "Port", NAME, "tag") == [{"tag": 42}]


@pytest.mark.parametrize("goes_on", [False, True])
async def test_one_that_is_half_made_is_gone_on_with_or_taken_off(
    host: Host, monkeypatch: pytest.MonkeyPatch, *, goes_on: bool
) -> None:
    """Open vSwitch says nothing: whoever comes later knows of the port all the same."""
    before = host.state()
    monkeypatch.setattr("vferry.host.ovsdb.TIMEOUT_S", 0.3)
    host.switch.deaf = True
    assert await refused(host, JOIN) == "switch-silent"
    assert await relay_ports(host) == (PORT,)
    host.switch.deaf = False
    monkeypatch.undo()
    host.restart()
    if goes_on:
        assert (await host.ask(JOIN, MOVING)).changed
        assert NAME in port_names(host)
    await host.ask(LEAVE, MOVING)
    assert (await relay_ports(host), port_names(host)) == ((), ["relay0", "relay0-up0"])
    assert host.state() == before


@pytest.mark.parametrize(
    "other",
    [
        replace(PORT, switch=replace(PLACE, bridge="relay1")),
        replace(PORT, switch=None),
        replace(PORT, switch=None, vf=RelayVf(pf="pf0", index=1, address=VFS[1])),
        replace(PORT, vf=RelayVf(pf="pf0", index=1, address=VFS[1])),
    ],
)
async def test_what_is_not_on_a_bridge_of_the_relay_is_not_joined(host: Host, other: RelayPort) -> None:
    host.claims.release(MOVING)
    host.claims.claim(MOVING, "guest1", (VFS[1],))
    before = host.state()
    assert await refused(host, JoinRelay(port=other)) == "relay-missing"
    assert host.state() == before
    assert await relay_ports(host) == ()


async def test_a_direct_relay_has_no_bridge_for_it(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        await host.enable(switched=False)
        host.claims.claim(MOVING, "guest1")
        assert await refused(host, JOIN) == "relay-missing"


async def test_without_its_bridge_in_open_vswitch_that_is_said(host: Host) -> None:
    drop = {"op": "update", "table": "Open_vSwitch", "where": [], "row": {"bridges": ["set", []]}}
    transact(host.root / SOCKET, drop)
    assert await refused(host, JOIN) == "relay-missing"
    assert (await host.ask(LEAVE, MOVING)).changed
    assert await relay_ports(host) == ()


async def test_another_guest_is_not_joined_by_the_same_mac(host: Host) -> None:
    await host.ask(JOIN, MOVING)
    host.claims.claim(OTHERS, "guest2")
    assert await refused(host, JoinRelay(port=replace(PORT, guest="guest2")), OTHERS) == "relay-joined"
    assert await refused(host, replace(LEAVE, guest="guest2"), OTHERS) == "relay-joined"
    assert await refused(host, replace(LEAVE, guest="guest2")) == "not-claimed"
    assert port_names(host) == ["relay0", "relay0-up0", NAME]


async def test_a_relay_that_a_guest_is_on_is_not_taken_back(host: Host) -> None:
    await host.ask(JOIN, MOVING)
    relay = (await host.inventory()).relay
    assert relay is not None
    assert await refused(host, api.KeepRelay(relay=replace(relay, state=RelayState.DISABLING)), MINE) == "relay-in-use"
    (bridge,) = relay.bridges
    assert await refused(host, api.SetRelayBridge(bridge=bridge, present=False), MINE) == "bridge-in-use"


async def test_made_whole_again_the_bridge_keeps_its_guests(host: Host) -> None:
    """The uplink did not open: Open vSwitch was up before the VF had its driver."""
    await host.ask(JOIN, MOVING)
    uplink = [["name", "==", "relay0-up0"]]
    (before,) = rows(host, "Interface", NAME, "_uuid")
    transact(host.root / SOCKET, {"op": "update", "table": "Interface", "where": uplink, "row": {"ofport": -1}})
    relay = (await host.inventory()).relay
    assert relay is not None
    wanted = api.SetRelayBridge(bridge=relay.bridges[0], present=True)
    assert await host.ask(wanted) == api.Done(detail="relay0")
    assert not (await host.ask(wanted)).changed
    assert rows(host, "Interface", NAME, "_uuid") == [before], "the guest's port was left alone"
    host.switch.broken.add(VFS[0])
    transact(host.root / SOCKET, {"op": "update", "table": "Interface", "where": uplink, "row": {"ofport": -1}})
    assert await refused(host, wanted, MINE) == "port-refused"
    assert rows(host, "Interface", NAME, "_uuid") == [before]


async def test_a_host_that_is_booted_has_its_guests_ports_again(host: Host) -> None:
    await host.ask(JOIN, MOVING)
    made = host.state()
    host.boot()
    drop = {"op": "update", "table": "Open_vSwitch", "where": [], "row": {"bridges": ["set", []]}}
    transact(host.root / SOCKET, drop)
    host.restart()
    await host.handlers.started()
    assert host.state() == made
    assert port_names(host) == ["relay0", "relay0-up0", NAME]
    assert await relay_ports(host) == (PORT,)


async def test_made_whole_again_it_has_its_guests_ports_again(host: Host) -> None:
    """Somebody has removed the bridges; the agent goes on all the time."""
    await host.ask(JOIN, MOVING)
    drop = {"op": "update", "table": "Open_vSwitch", "where": [], "row": {"bridges": ["set", []]}}
    transact(host.root / SOCKET, drop)
    plan = await host.enable(switched=True)
    assert [step.name for step in plan.steps[-2:]] == ["guests", "done"]
    assert port_names(host) == ["relay0", "relay0-up0", NAME]
    assert rows(host, "Port", NAME, "tag") == [{"tag": 42}]
    assert not (await host.ask(api.RejoinGuests())).changed


async def test_what_is_shown_names_the_guest_and_what_is_nobodys(host: Host) -> None:
    await host.ask(JOIN, MOVING)
    port = {"name": "other", "interfaces": ["named-uuid", "i"]}
    transact(
        host.root / SOCKET,
        {"op": "insert", "table": "Interface", "row": {"name": "other", "type": "internal"}, "uuid-name": "i"},
        {"op": "insert", "table": "Port", "row": port, "uuid-name": "p"},
        {"op": "mutate", "table": "Bridge", "where": [], "mutations": [["ports", "insert", ["named-uuid", "p"]]]},
    )
    view = await host.ask(api.ReadRelay(), None)
    assert [(port.name, port.guest, port.mac) for port in view.ports] == [
        ("other", "", ""),
        ("relay0-up0", "", ""),
        (NAME, "guest1", MAC),
    ]


async def test_a_guest_that_runs_is_shown_on_its_bridge(host: Host) -> None:
    host.library.add(FakeDomain(live=domain(VHOSTUSER)))
    await host.ask(JOIN, MOVING)
    inventory = await host.inventory()
    (nic,) = inventory.guests[0].nics
    assert (nic.relay_bridge, nic.relayed, nic.vf, nic.vlan) == ("relay0", True, None, 42)
    assert inventory.network_of_nic(nic) == "physnet1"
    assert (await host.ask(api.ShowGuest(guest="guest1"), None)).nics == (nic,)
    assert await host.handlers.users_of(VFS) == {}


@pytest.mark.parametrize(
    ("nic", "uplink", "port", "held"),
    [
        (VHOSTUSER, None, NAME, True),
        (VHOSTUSER, "pf0", "pf0", False),
        (VF_INTERFACE, None, NAME, True),
        (STANDBY, None, "vnet0", True),  # on its way from the relay, where its port stays until it is there
    ],
)
async def test_the_bridge_is_told_at_which_port_the_guest_is(
    host: Host, monkeypatch: pytest.MonkeyPatch, nic: str, uplink: str | None, port: str, *, held: bool
) -> None:
    taught: list[tuple[str, bool]] = []

    def teach_bridge(_links: object, _root: Path, at: str, _mac: str, *, hold: bool) -> api.Done:
        taught.append((at, hold))
        return api.Done()

    monkeypatch.setattr("vferry.host.handlers.parts.teach_bridge", teach_bridge)
    host.library.add(FakeDomain(live=domain(nic)))
    await host.ask(JOIN, MOVING)
    await host.ask(api.TeachBridge(guest="guest1", mac=MAC, uplink=uplink), MOVING)
    assert taught == [(port, held)]


@pytest.mark.parametrize(("port", "way"), [(None, "vfg525400aa000c"), (MAC, NAME)])
async def test_whose_announcement_comes_in_by_which_port(
    host: Host, monkeypatch: pytest.MonkeyPatch, port: str | None, way: str
) -> None:
    """Of whom is behind a service, by the service's."""
    said: list[tuple[str, bytes]] = []

    def send(inlet: Any, frame: bytes) -> int:
        said.append((inlet._port, frame))
        return len(frame)

    monkeypatch.setattr("vferry.host.openflow.Inlet.send", send)
    await host.ask(api.Announce(guest="guest1", mac=OTHER_MAC, port=port), MOVING)
    assert said[0] == (way, rarp(OTHER_MAC))


async def test_a_record_that_cannot_be_read_keeps_no_guest_from_being_announced(host: Host) -> None:
    host.library.add(FakeDomain(live=domain(VHOSTUSER)))
    (host.root / "state/relay-ports.json").write_text("{")
    assert await host.ask(api.TeachBridge(guest="guest1", mac=MAC), MOVING) == api.Done(changed=False)


# --- as a port that OVN binds ----------------------------------------------------------------------------

LOGICAL = replace(PORT, switch=SwitchPlace(bridge="br-int", logical_port="web-0"))


def add_integration_bridge(host: Host, datapath: str = "netdev") -> None:
    """As ovn-controller makes it."""
    row = {"name": "br-int", "datapath_type": datapath, "fail_mode": "secure"}
    insert = {"op": "insert", "table": "Bridge", "row": row, "uuid-name": "b"}
    added = [["bridges", "insert", ["named-uuid", "b"]]]
    transact(host.root / SOCKET, insert, {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": added})


async def test_as_a_port_of_ovn_s_it_is_on_the_integration_bridge(host: Host) -> None:
    add_integration_bridge(host)
    before = port_names(host)
    assert await host.ask(JoinRelay(port=LOGICAL), MOVING) == api.Done(detail="br-int")
    assert not (await host.ask(JoinRelay(port=LOGICAL), MOVING)).changed
    (interface,) = rows(host, "Interface", NAME, "external_ids", "type")
    assert interface == {
        "external_ids": ["map", [["attached-mac", MAC], ["iface-id", "web-0"]]],
        "type": "dpdkvhostuserclient",
    }
    view = await host.ask(api.ReadRelay(), None)
    assert [(port.name, port.bridge, port.guest) for port in view.ports] == [
        (NAME, "br-int", "guest1"),
        ("relay0-up0", "relay0", ""),
    ]
    other = replace(LOGICAL, switch=SwitchPlace(bridge="br-int", logical_port="web-1"))
    assert (await host.ask(JoinRelay(port=other), MOVING)).changed
    assert rows(host, "Interface", NAME, "external_ids")[0]["external_ids"][1][1] == ["iface-id", "web-1"]
    await host.ask(LEAVE, MOVING)
    assert port_names(host) == before


@pytest.mark.parametrize("datapath", ["system", "", None])
async def test_without_ovn_s_bridge_in_user_space_that_is_said(host: Host, datapath: str | None) -> None:
    if datapath is not None:
        add_integration_bridge(host, datapath)
    assert await refused(host, JoinRelay(port=LOGICAL)) == "relay-missing"
    await host.ask(LEAVE, MOVING)
    assert await relay_ports(host) == ()


async def test_a_bridge_of_somebody_else_s_is_no_relay_s_without_ovn(host: Host) -> None:
    add_integration_bridge(host)
    plain = replace(PORT, switch=SwitchPlace(bridge="br-int"))
    assert await refused(host, JoinRelay(port=plain)) == "relay-missing"


def tell_ovn(host: Host, **told: str) -> None:
    ids = [[key.replace("_", "-"), value] for key, value in told.items()]
    row = {"external_ids": ["map", ids]}
    transact(host.root / SOCKET, {"op": "update", "table": "Open_vSwitch", "where": [], "row": row})


@pytest.mark.parametrize(
    ("told", "datapath", "chassis"),
    [
        ({}, "netdev", None),
        ({"system_id": "c1"}, "netdev", None),
        ({"ovn_remote": "ssl:192.0.2.1:6642"}, "netdev", None),
        (
            {"system_id": "c1", "ovn_remote": "x"},
            "netdev",
            Chassis(name="c1", bridge="br-int", userspace=True, connected=False),
        ),
        ({"system_id": "c1", "ovn_remote": "x"}, "system", Chassis(name="c1", bridge="br-int")),
        ({"system_id": "c1", "ovn_remote": "x", "ovn_bridge": "br9"}, "netdev", Chassis(name="c1", bridge="br9")),
    ],
)
async def test_what_a_host_is_to_ovn(host: Host, told: dict[str, str], datapath: str, chassis: Chassis | None) -> None:
    add_integration_bridge(host, datapath)
    tell_ovn(host, **told)
    assert (await host.inventory()).chassis == chassis


@pytest.mark.parametrize("said", ["connected", "not connected", None])
async def test_whether_its_ovn_controller_is_connected(host: Host, said: str | None) -> None:
    add_integration_bridge(host)
    tell_ovn(host, system_id="c1", ovn_remote="x")
    directory = host.root / "run/ovn"
    directory.mkdir(parents=True)
    (directory / "ovn-controller.pid").write_text("42\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        if said is not None:
            server.bind(str(directory / "ovn-controller.42.ctl"))
            server.listen()

        def serve() -> None:
            wire, _ = server.accept()
            with wire:
                assert b'"connection-status"' in wire.recv(1000)
                wire.sendall(encode({"id": 0, "result": f"{said}\n", "error": None}))

        thread = threading.Thread(target=serve)
        if said is not None:
            thread.start()
        chassis = (await host.inventory()).chassis
        if said is not None:
            thread.join(10)
    assert chassis is not None
    assert chassis.connected == (said == "connected")
