"""Gateways of a switched relay's VLANs, through the agent's handlers: kept, made again, and given back."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from ovs_database import transact
from relay_host import MINE, MOVING, VFS, Host, refused, running

from vferry.host import api
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.ovsdb import SOCKET
from vferry.host.relay_far import put_flows
from vferry.model.problem import Problem
from vferry.model.relay import Relay, RelayGateway
from vferry.plan.host_step import HostStep
from vferry.plan.relay_steps import leading, not_leading

GATEWAY = RelayGateway(bridge="relay0", vlan=7, remote="192.0.2.9", key=1007)
OTHER = replace(GATEWAY, remote="192.0.2.10")
SET = api.SetRelayGateway(gateway=GATEWAY, present=True)


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    """A host with a switched relay, and a way to all gateways by its bridge."""
    monkeypatch.setattr(OpenVSwitch, "way_to", lambda _self, _address: "relay0")
    monkeypatch.setattr("vferry.host.relay_gateway.put_flows", lambda _root, _gateway, **_: None)
    with running(tmp_path) as host:
        await host.enable(switched=True)
        yield host


def tunnels(host: Host) -> list[dict[str, Any]]:
    where = [["type", "==", "gre"]]
    select = {"op": "select", "table": "Interface", "where": where, "columns": ["name", "options"]}
    found: list[dict[str, Any]] = transact(host.root / SOCKET, select)[0]["rows"]
    return found


def tags(host: Host) -> list[Any]:
    where = [["name", "==", GATEWAY.port]]
    select = {"op": "select", "table": "Port", "where": where, "columns": ["tag", "vlan_mode"]}
    found: list[Any] = transact(host.root / SOCKET, select)[0]["rows"]
    return found


async def relay_of(host: Host) -> Relay:
    relay = (await host.inventory()).relay
    assert relay is not None
    return relay


async def do(host: Host, *steps: HostStep, undo: bool = False) -> None:
    for step in reversed(steps) if undo else steps:
        for operation in step.undo if undo else step.apply:
            await host.ask(operation)


async def test_there_and_back(host: Host) -> None:
    before, relay = host.state(), await relay_of(host)
    await do(host, *leading(relay, GATEWAY))
    led = await relay_of(host)
    assert led == replace(relay, gateways=(GATEWAY,))
    assert tunnels(host) == [
        {"name": "relay0-t7", "options": ["map", [["key", "1007"], ["remote_ip", "192.0.2.9"]]]},
    ]
    assert tags(host) == [{"tag": 7, "vlan_mode": "access"}]
    assert not (await host.ask(SET)).changed
    await do(host, *leading(led, OTHER))
    assert (await relay_of(host)).gateways == (OTHER,)
    assert [row["options"][1][1] for row in tunnels(host)] == [["remote_ip", "192.0.2.10"]]
    await do(host, *not_leading(await relay_of(host), OTHER))
    assert (await relay_of(host), tunnels(host)) == (relay, [])
    assert host.state() == before


@pytest.mark.parametrize("there", [False, True])
async def test_what_fails_is_as_before(host: Host, *, there: bool) -> None:
    """Whichever step fails, before or after it was done, or has lost its answer."""
    if there:
        await do(host, *leading(await relay_of(host), OTHER))
    relay, made = await relay_of(host), tunnels(host)
    steps = leading(relay, GATEWAY)
    for begun in range(1, len(steps) + 1):
        for done in (begun - 1, begun):
            await do(host, *steps[:done])
            await do(host, *steps[:begun], undo=True)
            assert (await relay_of(host), tunnels(host)) == (relay, made), (begun, done)


async def test_the_relay_takes_its_gateways_along(host: Host) -> None:
    await do(host, *leading(await relay_of(host), GATEWAY))
    await host.disable()
    assert tunnels(host) == []
    assert (await host.inventory()).relay is None


@pytest.mark.parametrize("routed", [False, True])
async def test_a_host_that_is_booted_has_them_again(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, routed: bool
) -> None:
    """The host's address may be given to the bridge after the agent was started."""
    await do(host, *leading(await relay_of(host), GATEWAY))
    made = tunnels(host)
    drop = {"op": "update", "table": "Open_vSwitch", "where": [], "row": {"bridges": ["set", []]}}
    transact(host.root / SOCKET, drop)
    assert tunnels(host) == []
    if not routed:
        monkeypatch.setattr(OpenVSwitch, "way_to", lambda _self, _address: None)
    host.restart()
    await host.handlers.started()
    assert tunnels(host) == made
    assert ("no way to 192.0.2.9" in caplog.text) is not routed
    assert (await relay_of(host)).gateways == (GATEWAY,)


async def test_it_is_shown_as_the_relay_s_own(host: Host) -> None:
    await do(host, *leading(await relay_of(host), GATEWAY))
    view = await host.ask(api.ReadRelay(), None)
    assert [(port.name, port.type, port.guest) for port in view.ports] == [
        ("relay0-t7", "gre", ""),
        ("relay0-up0", "dpdk", ""),
    ]


@pytest.mark.parametrize("found", [None, "eth0"])
async def test_a_way_that_is_not_the_bridge_s_is_none(
    host: Host, monkeypatch: pytest.MonkeyPatch, found: str | None
) -> None:
    monkeypatch.setattr(OpenVSwitch, "way_to", lambda _self, _address: found)
    assert await refused(host, SET, MINE) == "gateway-unrouted"


async def test_only_whoever_has_the_relay_changes_it(host: Host) -> None:
    host.claims.claim(MOVING, "guest1", VFS[1:])
    assert await refused(host, SET) == "relay-missing"
    unknown = api.SetRelayGateway(gateway=replace(GATEWAY, bridge="relay1"), present=True)
    assert await refused(host, unknown, MINE) == "relay-missing"
    host.claims.release(MINE)
    assert await refused(host, SET, MINE) == "not-claimed"
    assert tunnels(host) == []


async def test_without_its_bridge_in_open_vswitch_that_is_said(host: Host) -> None:
    drop = {"op": "update", "table": "Open_vSwitch", "where": [], "row": {"bridges": ["set", []]}}
    transact(host.root / SOCKET, drop)
    assert await refused(host, SET, MINE) == "relay-missing"
    assert not (await host.ask(api.SetRelayGateway(gateway=GATEWAY, present=False))).changed


async def test_a_switch_that_is_silent_is_left_with_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vferry.host.ovsdb.TIMEOUT_S", 0.3)
    host.switch.deaf = True
    assert await refused(host, SET, MINE) == "switch-silent"
    host.switch.deaf = False
    assert tunnels(host) == []


# --- with a label ----------------------------------------------------------------------------------------

LABELLED = replace(GATEWAY, key=None, label=100007)
EIGHT = replace(LABELLED, vlan=8, label=100008)
TUNNEL, ELSEWHERE = "vfmc0000209", "vfmc000020a"


def ports(host: Host) -> dict[str, set[str]]:
    """By their bridges."""
    select = [
        {"op": "select", "table": table, "where": [], "columns": columns}
        for table, columns in (("Bridge", ["name", "ports"]), ("Port", ["_uuid", "name"]))
    ]
    bridges, found = (answer["rows"] for answer in transact(host.root / SOCKET, *select))
    names = {row["_uuid"][1]: row["name"] for row in found}
    listed = {row["name"]: row["ports"][1] if row["ports"][0] == "set" else [row["ports"]] for row in bridges}
    return {name: {names[each[1]] for each in of} - {name} for name, of in listed.items()}


async def test_labels_share_a_bridge_and_a_tunnel_which_go_with_the_last(host: Host) -> None:
    before = host.state()
    await do(host, *leading(await relay_of(host), LABELLED))
    assert ports(host) == {"relay0": {"relay0-up0", "relay0-t7"}, "vferry-gre": {TUNNEL, "relay0-m7"}}
    assert not (await host.ask(api.SetRelayGateway(gateway=LABELLED, present=True))).changed
    where = [["name", "==", "vferry-gre"]]
    columns = ["datapath_type", "fail_mode", "external_ids"]
    select = {"op": "select", "table": "Bridge", "where": where, "columns": columns}
    assert transact(host.root / SOCKET, select)[0]["rows"] == [
        {"datapath_type": "netdev", "fail_mode": "secure", "external_ids": ["map", [["vferry", "relay"]]]}
    ]
    await do(host, *leading(await relay_of(host), EIGHT))
    await do(host, *leading(await relay_of(host), replace(LABELLED, remote="192.0.2.10")))
    assert ports(host)["vferry-gre"] == {TUNNEL, ELSEWHERE, "relay0-m7", "relay0-m8"}
    await do(host, *leading(await relay_of(host), GATEWAY))
    assert ports(host)["vferry-gre"] == {TUNNEL, "relay0-m8"}
    await do(host, *not_leading(await relay_of(host), EIGHT))
    assert ports(host) == {"relay0": {"relay0-up0", "relay0-t7"}}
    await do(host, *not_leading(await relay_of(host), GATEWAY))
    assert host.state() == before


async def test_a_key_with_ip_alone_has_a_tunnel_of_its_own(host: Host) -> None:
    before = ports(host)
    await do(host, *leading(await relay_of(host), replace(GATEWAY, address="10.0.0.254")))
    await do(host, *leading(await relay_of(host), replace(LABELLED, vlan=8, address="10.0.0.254")))
    assert ports(host)["vferry-gre"] == {"relay0-r7", "relay0-m7", TUNNEL, "relay0-m8"}
    options = {row["name"]: dict(row["options"][1]) for row in tunnels(host)}
    assert options["relay0-r7"] == {"key": "1007", "packet_type": "legacy_l3", "remote_ip": "192.0.2.9"}
    await do(host, *leading(await relay_of(host), replace(OTHER, address="10.0.0.254")))
    options = {row["name"]: dict(row["options"][1]) for row in tunnels(host)}
    assert options["relay0-r7"]["remote_ip"] == "192.0.2.10"
    assert ports(host)["vferry-gre"] == {"relay0-r7", "relay0-m7", TUNNEL, "relay0-m8"}
    await do(host, *leading(await relay_of(host), replace(LABELLED, remote="192.0.2.10", vlan=8)))
    assert ports(host)["vferry-gre"] == {"relay0-r7", "relay0-m7", ELSEWHERE, "relay0-m8"}, "what nobody needs is gone"
    for gateway in (await relay_of(host)).gateways:
        await do(host, *not_leading(await relay_of(host), gateway))
    assert ports(host) == before


@pytest.mark.parametrize("there", [None, OTHER, replace(LABELLED, label=16), replace(LABELLED, address="10.0.0.254")])
async def test_a_label_that_fails_is_as_before(host: Host, there: RelayGateway | None) -> None:
    if there:
        await do(host, *leading(await relay_of(host), there))
    relay, made = await relay_of(host), ports(host)
    steps = leading(relay, LABELLED)
    for begun in range(1, len(steps) + 1):
        await do(host, *steps[:begun])
        await do(host, *steps[:begun], undo=True)
        assert (await relay_of(host), ports(host)) == (relay, made), begun


async def test_the_relay_takes_its_labels_along(host: Host) -> None:
    await do(host, *leading(await relay_of(host), LABELLED))
    await do(host, *leading(await relay_of(host), EIGHT))
    await host.disable()
    assert ports(host) == {}


async def test_a_bridge_of_somebody_else_s_is_left_alone(host: Host) -> None:
    insert = {"op": "insert", "table": "Bridge", "row": {"name": "vferry-gre"}, "uuid-name": "b"}
    added = [["bridges", "insert", ["named-uuid", "b"]]]
    transact(host.root / SOCKET, insert, {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": added})
    before = ports(host)
    assert await refused(host, api.SetRelayGateway(gateway=LABELLED, present=True), MINE) == "bridge-anothers"
    assert not (await host.ask(api.SetRelayGateway(gateway=LABELLED, present=False))).changed
    assert ports(host) == before


async def test_where_no_bridge_takes_its_flows_that_is_said(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vferry.host.relay_gateway.put_flows", put_flows)
    assert await refused(host, api.SetRelayGateway(gateway=LABELLED, present=True), MINE) == "port-refused"


async def test_flows_are_put_again_for_each_new_process_of_the_switch(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put: list[int] = []
    fails = True

    def put_again(_root: Path, gateway: RelayGateway) -> None:
        put.append(gateway.vlan)
        if fails:
            raise Problem("port-refused", "Its ports are not there", "Wait")

    monkeypatch.setattr("vferry.host.relay_far.put_flows", put_again)
    for each in (LABELLED, replace(GATEWAY, vlan=9), EIGHT):
        await do(host, *leading(await relay_of(host), each))
    await host.handlers.follow()
    assert put == [], "it does not run"
    number = host.root / "run/openvswitch/ovs-vswitchd.pid"
    number.write_text("17\n")
    await host.handlers.follow()
    await host.handlers.follow()
    assert put == [7, 7]
    assert caplog.text.count("Its ports are not there") == 1
    fails = False
    await host.handlers.follow()
    await host.handlers.follow()
    assert put == [7, 7, 7, 8]
    number.write_text("18\n")
    await host.handlers.follow()
    assert put[4:] == [7, 8]
    (host.root / "state/relay.json").write_text("{")
    number.write_text("19\n")
    await host.handlers.follow()
    assert put[6:] == []
