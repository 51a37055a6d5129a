"""Restarts of Open vSwitch under a relay with a guest: what is there stays, and what is missing is made again."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from ovs_database import transact
from relay_host import MOVING, PAGES, VFS, Host, refused, running

from vferry.host import api
from vferry.host.api import JoinRelay
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.ovsdb import SOCKET
from vferry.host.relay_restore import AGAIN_AFTER_S
from vferry.model.problem import Problem
from vferry.model.relay import RelayGateway, RelayPort, RelayVf, SwitchPlace

MAC = "52:54:00:aa:00:0b"
BRIDGE, UPLINK, PORT = ("vfr525400aa000b", "vfu525400aa000b", "vfg525400aa000b")
DIRECT = RelayPort(guest="guest1", mac=MAC, socket="/s", vf=RelayVf(pf="pf0", index=1, address=VFS[1]))
SWITCHED = replace(DIRECT, vf=None, switch=SwitchPlace(bridge="relay0", vlan=7))
WITHOUT_DPDK = "DPDK does not start in Open vSwitch"


@pytest.fixture(params=[False, True], ids=["direct", "switched"])
async def host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Host]:
    """A host with a relay that a guest is on."""
    with running(tmp_path) as host:
        await join(host, switched=request.param)
        yield host


@pytest.fixture
async def direct(tmp_path: Path) -> AsyncIterator[Host]:
    with running(tmp_path) as host:
        await join(host, switched=False)
        yield host


@pytest.fixture
async def switched(tmp_path: Path) -> AsyncIterator[Host]:
    with running(tmp_path) as host:
        await join(host, switched=True)
        yield host


async def join(host: Host, *, switched: bool) -> None:
    await host.enable(switched=switched)
    host.claims.claim(MOVING, "guest1", () if switched else (VFS[1],))
    await host.ask(JoinRelay(port=SWITCHED if switched else DIRECT), MOVING)
    host.switch.start_anew(dpdk_works=True)


def rows(host: Host) -> dict[str, Any]:
    """All bridges, ports and interfaces; each is another one where it was made anew."""
    tables = ("Bridge", "Port", "Interface")
    select = [{"op": "select", "table": table, "where": [], "columns": ["_uuid", "name"]} for table in tables]
    answers = transact(host.root / SOCKET, *select)
    return {
        f"{table} {row['name']}": row["_uuid"] for table, of in zip(tables, answers, strict=True) for row in of["rows"]
    }


def unopened(host: Host) -> list[str]:
    select = {"op": "select", "table": "Interface", "where": [["ofport", "==", -1]], "columns": ["name"]}
    return sorted(row["name"] for row in transact(host.root / SOCKET, select)[0]["rows"])


def drop_bridges(host: Host) -> None:
    transact(
        host.root / SOCKET, {"op": "update", "table": "Open_vSwitch", "where": [], "row": {"bridges": ["set", []]}}
    )


async def test_without_dpdk_all_stays_and_works_once_it_runs(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    made = rows(host)
    host.switch.start_anew(dpdk_works=False)
    host.restart()
    await host.handlers.started()
    assert (rows(host), PORT in unopened(host)) == (made, True)
    for _ in range(3):
        await host.handlers.follow()
    assert caplog.text.count(WITHOUT_DPDK) == 1
    assert await refused(host, api.RejoinGuests()) == "port-refused"
    assert await refused(host, api.PlugRelayed(guest="guest1", mac=MAC, alias="ua-relay")) == "port-refused"
    assert rows(host) == made
    host.switch.start_anew(dpdk_works=True)
    caplog.set_level("INFO")
    await host.handlers.follow()
    assert (rows(host), unopened(host)) == (made, [])
    assert "the relay's Open vSwitch is as it was" in caplog.text


async def test_what_is_missing_is_made_when_open_vswitch_is_started_anew(host: Host) -> None:
    """Somebody has lost the database, too; the agent goes on all the time."""
    await host.handlers.started()
    made = rows(host)
    drop_bridges(host)
    await host.handlers.follow()
    assert rows(host) == {}
    host.switch.start_anew(dpdk_works=True)
    await host.handlers.follow()
    assert rows(host).keys() == made.keys()


async def test_what_has_failed_is_tried_again_after_a_while(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rows(host)
    drop_bridges(host)
    host.switch.deaf = True
    with monkeypatch.context() as short:
        short.setattr("vferry.host.ovsdb.TIMEOUT_S", 0.3)
        await host.handlers.started()
    host.switch.deaf = False
    await host.handlers.follow()
    assert rows(host) == {}, "not yet"
    host.handlers.parts.restoring._again_at -= AGAIN_AFTER_S
    await host.handlers.follow()
    assert rows(host).keys() == made.keys()


async def test_a_failure_is_said_again_when_it_is_another(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Also of a relay whose record cannot be read any more, which stops nothing."""
    (host.root / PAGES).unlink()
    for _ in range(2):
        host.switch.start_anew(dpdk_works=True)
        await host.handlers.follow()
    assert caplog.text.count("memory on NUMA node 0 is not as it was") == 1
    (host.root / PAGES).write_text("10\n")
    host.switch.start_anew(dpdk_works=True)
    await host.handlers.follow()
    (host.root / PAGES).unlink()
    host.switch.start_anew(dpdk_works=True)
    await host.handlers.follow()
    assert caplog.text.count("memory on NUMA node 0 is not as it was") == 2
    (host.root / "state/relay.json").write_text("{")
    for _ in range(2):
        host.switch.start_anew(dpdk_works=True)
        await host.handlers.follow()
    assert caplog.text.count("the relay's record is not as it was") == 1


async def test_without_a_relay_nothing_is_asked_of_open_vswitch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path) as host:
        host.switch.start_anew(dpdk_works=False)
        monkeypatch.setattr("vferry.host.ovsdb.TIMEOUT_S", 0.1)
        host.switch.deaf = True
        await host.handlers.started()
        await host.handlers.follow()
    assert caplog.text == ""


async def test_a_vf_that_cannot_be_opened_costs_no_row(direct: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Its port alone is made anew if it is gone, or is another one."""
    made = rows(direct)
    direct.switch.broken.add(VFS[1])
    direct.switch.start_anew(dpdk_works=True)
    await direct.handlers.follow()
    assert (rows(direct), unopened(direct)) == (made, [UPLINK])
    assert f"port {MAC} of guest guest1 is not as it was" in caplog.text
    where = [["name", "==", UPLINK]]
    transact(direct.root / SOCKET, {"op": "update", "table": "Interface", "where": where, "row": {"type": "internal"}})
    assert await refused(direct, api.RejoinGuests()) == "port-refused"
    now = rows(direct)
    assert {name for name in made if now[name] != made[name]} == {f"Port {UPLINK}", f"Interface {UPLINK}"}


async def test_a_tunnel_that_cannot_be_opened_stays(switched: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenVSwitch, "way_to", lambda _self, _address: "relay0")
    gateway = RelayGateway(bridge="relay0", vlan=7, remote="192.0.2.9", key=7)
    wanted = api.SetRelayGateway(gateway=gateway, present=True)
    await switched.ask(wanted)
    made = rows(switched)
    monkeypatch.setattr("vferry.host.relay_gateway.unopened", lambda _interface: "could not add network device")
    with pytest.raises(Problem, match="could not add network device"):
        await switched.ask(wanted)
    assert rows(switched) == made


async def test_a_guest_s_port_that_is_not_there_is_shown_as_missing(host: Host) -> None:
    drop_bridges(host)
    view = await host.ask(api.ReadRelay(), None)
    (port,) = view.ports
    assert (port.name, port.guest, port.mac, port.error, port.up) == (PORT, "guest1", MAC, "missing", False)
    assert port.bridge in (BRIDGE, "relay0")
