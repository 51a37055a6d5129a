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
