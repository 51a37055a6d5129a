"""The relay's part of Open vSwitch, in a real database of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from ovs_database import Vswitchd, serve, transact

from vferry.host import ovsdb, relay_bridge
from vferry.host.api import Done, SetRelayBridge, SetSwitch
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.ovsdb import SOCKET, Database
from vferry.host.relay_guest_port import set_port
from vferry.host.relay_switch import set_bridge, set_switch
from vferry.host.relay_view import read_relay
from vferry.model.problem import Problem
from vferry.model.relay import Relay, RelayBridge, RelayKind, RelayPort, RelayState, RelayUplink, RelayVf

VF, VF2 = "0000:01:10.0", "0000:01:10.2"
ONE = RelayBridge(name="relay0", uplinks=(RelayUplink(name="relay0-up0", address=VF),), mtu=9000)
TWO = RelayBridge(name="relay0", uplinks=(*ONE.uplinks, RelayUplink(name="relay0-up1", address=VF2)))
PORT = RelayPort(
    guest="guest1",
    mac="52:54:00:aa:00:01",
    socket="/run/vferry/relay/x.sock",
    vf=RelayVf(pf="pf0", index=0, address=VF),
    mtu=9000,
)
RELAY = Relay(
    operation="relay-1", state=RelayState.ENABLED, kind=RelayKind.SWITCHED, uplinks=("pf0",), cores=(1,), bridges=(ONE,)
)
LOG = "/var/log/openvswitch/ovs-vswitchd.log"
SETTINGS = {"pmd-cpu-mask": "0x2", "dpdk-init": "try"}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    with serve(tmp_path):
        yield tmp_path


@pytest.fixture
def switch(root: Path) -> Iterator[Vswitchd]:
    with Vswitchd(root) as switch:
        yield switch


def rows(root: Path, table: str, *columns: str) -> list[dict[str, Any]]:
    (answer,) = transact(root / SOCKET, {"op": "select", "table": table, "where": [], "columns": list(columns)})
    found: list[dict[str, Any]] = answer["rows"]
    return found


def names(root: Path, table: str) -> list[str]:
    return sorted(row["name"] for row in rows(root, table, "name"))


def add_bridge(root: Path, name: str) -> None:
    insert = {"op": "insert", "table": "Bridge", "row": {"name": name}, "uuid-name": "b"}
    added = [["bridges", "insert", ["named-uuid", "b"]]]
    transact(root / SOCKET, insert, {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": added})


def configured(root: Path) -> dict[str, str]:
    return dict(rows(root, "Open_vSwitch", "other_config")[0]["other_config"][1])


def test_settings_there_and_back(root: Path, switch: Vswitchd) -> None:
    transact(root / SOCKET, {"op": "update", "table": "Open_vSwitch", "where": [], "row": theirs("n-handler-threads")})
    assert set_switch(root, SetSwitch(settings=dict(SETTINGS), start=True)).changed
    assert configured(root) == {**SETTINGS, "n-handler-threads": "1"}
    found = OpenVSwitch(root).abilities()
    assert found is not None
    assert (found.dpdk_started, found.settings) == (True, configured(root))
    assert not set_switch(root, SetSwitch(settings=dict(SETTINGS), start=True)).changed
    back = SetSwitch(settings=dict.fromkeys(SETTINGS), instead_of=dict(SETTINGS))
    assert set_switch(root, back).changed
    assert configured(root) == {"n-handler-threads": "1"}
    assert not set_switch(root, back).changed
    assert switch.is_alive()


def theirs(key: str) -> dict[str, Any]:
    return {"other_config": ["map", [[key, "1"]]]}


def test_what_somebody_has_set_since_is_left(root: Path, switch: Vswitchd) -> None:
    transact(root / SOCKET, {"op": "update", "table": "Open_vSwitch", "where": [], "row": theirs("pmd-cpu-mask")})
    back = SetSwitch(settings=dict.fromkeys(SETTINGS), instead_of=dict(SETTINGS))
    assert not set_switch(root, back).changed
    assert configured(root) == {"pmd-cpu-mask": "1"}
    assert switch.is_alive()


@pytest.mark.parametrize("asked", ["true", "false"])
def test_whether_it_offloads_is_read_and_left(root: Path, switch: Vswitchd, asked: str) -> None:
    theirs = {"other_config": ["map", [["hw-offload", asked]]]}
    transact(root / SOCKET, {"op": "update", "table": "Open_vSwitch", "where": [], "row": theirs})
    assert set_switch(root, SetSwitch(settings=dict(SETTINGS), start=True)).changed
    found = OpenVSwitch(root).abilities()
    assert found is not None
    assert found.offloads is (asked == "true")
    assert set_switch(root, SetSwitch(settings=dict.fromkeys(SETTINGS), instead_of=dict(SETTINGS))).changed
    assert configured(root) == {"hw-offload": asked}
    assert switch.is_alive()


def test_dpdk_that_does_not_start_is_said(root: Path, switch: Vswitchd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovsdb, "TIMEOUT_S", 1.5)
    switch.dpdk_works = False
    with pytest.raises(Problem) as caught:
        set_switch(root, SetSwitch(settings=dict(SETTINGS), start=True))
    assert caught.value.code == "dpdk-not-started"
    assert f"grep -i dpdk {LOG}" in caught.value.remedy
    assert set_switch(root, SetSwitch(settings=dict.fromkeys(SETTINGS))).changed


def test_a_setting_that_does_not_stay_is_said(root: Path, switch: Vswitchd) -> None:
    switch.meddle = {"pmd-cpu-mask": "0xff"}
    with pytest.raises(Problem, match="pmd-cpu-mask '0xff' after it was set to '0x2'") as caught:
        set_switch(root, SetSwitch(settings=dict(SETTINGS)))
    assert caught.value.code == "switch-refused"


def test_a_bridge_there_and_back(root: Path, switch: Vswitchd) -> None:
    assert set_bridge(root, SetRelayBridge(bridge=ONE, present=True)) == Done(detail="relay0")
    (row,) = rows(root, "Bridge", "name", "datapath_type", "external_ids")
    assert row == {"name": "relay0", "datapath_type": "netdev", "external_ids": ["map", [["vferry", "relay"]]]}
    interfaces = {row["name"]: row for row in rows(root, "Interface", "name", "type", "options", "mtu_request")}
    assert interfaces["relay0-up0"] == {
        "name": "relay0-up0",
        "type": "dpdk",
        "options": ["map", [["dpdk-devargs", VF]]],
        "mtu_request": 9000,
    }
    assert interfaces["relay0"]["type"] == "internal"
    assert set_bridge(root, SetRelayBridge(bridge=ONE, present=True)) == Done(changed=False)
    assert set_bridge(root, SetRelayBridge(bridge=ONE, present=False)).changed
    assert [names(root, table) for table in ("Bridge", "Port", "Interface")] == [[], [], []]
    assert set_bridge(root, SetRelayBridge(bridge=ONE, present=False)) == Done(changed=False)
    assert switch.is_alive()


def test_two_uplinks_are_a_bond(root: Path, switch: Vswitchd) -> None:
    assert set_bridge(root, SetRelayBridge(bridge=TWO, present=True)).changed
    ports = {row.pop("name"): row for row in rows(root, "Port", "name", "bond_mode", "other_config")}
    assert ports["relay0-up"] == {
        "bond_mode": "active-backup",
        "other_config": ["map", [["bond-primary", "relay0-up0"]]],
    }
    assert ports["relay0"] == {"bond_mode": ["set", []], "other_config": ["map", []]}
    assert names(root, "Interface") == ["relay0", "relay0-up0", "relay0-up1"]
    assert not set_bridge(root, SetRelayBridge(bridge=TWO, present=True)).changed
    assert set_bridge(root, SetRelayBridge(bridge=TWO, present=False)).changed
    assert switch.is_alive()


def test_a_port_that_cannot_be_opened_leaves_nothing(root: Path, switch: Vswitchd) -> None:
    switch.broken.add(VF2)
    with pytest.raises(Problem, match="relay0-up1: could not open network device") as caught:
        set_bridge(root, SetRelayBridge(bridge=TWO, present=True))
    assert caught.value.code == "port-refused"
    assert LOG in caught.value.remedy
    assert [names(root, table) for table in ("Bridge", "Port", "Interface")] == [[], [], []]


def test_one_that_broke_is_made_anew(root: Path, switch: Vswitchd) -> None:
    set_bridge(root, SetRelayBridge(bridge=ONE, present=True))
    where = [["name", "==", "relay0-up0"]]
    transact(root / SOCKET, {"op": "update", "table": "Interface", "where": where, "row": {"ofport": -1}})
    assert set_bridge(root, SetRelayBridge(bridge=ONE, present=True)).changed
    assert not set_bridge(root, SetRelayBridge(bridge=ONE, present=True)).changed
    assert switch.is_alive()


def test_another_s_bridge_is_left(root: Path, switch: Vswitchd) -> None:
    add_bridge(root, "relay0")
    for present in (True, False):
        with pytest.raises(Problem) as caught:
            set_bridge(root, SetRelayBridge(bridge=ONE, present=present))
        assert caught.value.code == "bridge-anothers"
    assert set_port(root, PORT, present=True).changed
    assert names(root, "Bridge") == ["relay0", "vfr525400aa0001"]
    assert set_port(root, PORT, present=False).changed
    assert names(root, "Bridge") == ["relay0"]
    assert switch.is_alive()


def add_port(root: Path, name: str) -> None:
    """One that somebody else makes."""
    port = {"name": name, "interfaces": ["named-uuid", "i"]}
    operations: list[dict[str, Any]] = [
        {"op": "insert", "table": "Interface", "row": {"name": name}, "uuid-name": "i"},
        {"op": "insert", "table": "Port", "row": port, "uuid-name": "p"},
        {"op": "mutate", "table": "Bridge", "where": [], "mutations": [["ports", "insert", ["named-uuid", "p"]]]},
    ]
    transact(root / SOCKET, *operations)


def test_a_bridge_with_guests_stays(root: Path, switch: Vswitchd) -> None:
    set_bridge(root, SetRelayBridge(bridge=ONE, present=True))
    add_port(root, "guest")
    with pytest.raises(Problem, match="guest") as caught:
        set_bridge(root, SetRelayBridge(bridge=ONE, present=False))
    assert caught.value.code == "bridge-in-use"
    assert names(root, "Bridge") == ["relay0"]
    assert switch.is_alive()


def test_a_direct_relay_is_a_bridge_that_does_not_learn(root: Path, switch: Vswitchd) -> None:
    assert set_port(root, PORT, present=True).changed
    (bridge,) = rows(root, "Bridge", "name", "datapath_type", "flood_vlans", "other_config", "fail_mode", "controller")
    assert bridge["name"] == "vfr525400aa0001"
    assert bridge["datapath_type"] == "netdev"
    assert sorted(bridge["flood_vlans"][1]) == list(range(4096))
    assert bridge["other_config"] == ["map", [["forward-bpdu", "true"]]]
    assert (bridge["fail_mode"], bridge["controller"]) == (["set", []], ["set", []])
    ports = {row["name"]: (row["tag"], row["vlan_mode"]) for row in rows(root, "Port", "name", "tag", "vlan_mode")}
    assert ports.pop("vfr525400aa0001") == (4095, "access")
    assert list(ports.values()) == [(["set", []], ["set", []])] * 2
    interfaces = {row["name"]: row for row in rows(root, "Interface", "name", "type", "options", "mtu_request")}
    assert interfaces["vfg525400aa0001"]["type"] == "dpdkvhostuserclient"
    assert interfaces["vfg525400aa0001"]["options"] == ["map", [["vhost-server-path", PORT.socket]]]
    assert interfaces["vfu525400aa0001"]["options"] == ["map", [["dpdk-devargs", VF]]]
    assert {row["mtu_request"] for name, row in interfaces.items() if not name.startswith("vfr")} == {9000}
    assert not set_port(root, PORT, present=True).changed
    assert switch.is_alive()


@pytest.mark.parametrize(
    ("mask", "queues", "of_vf", "of_uplink"),
    [("0x2", 4, None, None), ("0x6", 4, "2", "2"), ("0x1e", 2, "2", "4"), ("0x1e", 1, None, "4"), ("?", 4, None, None)],
)
def test_a_nic_has_as_many_receive_queues_as_cpus_forward_and_its_guest_has(
    root: Path, switch: Vswitchd, mask: str, queues: int, of_vf: str | None, of_uplink: str | None
) -> None:
    set_switch(root, SetSwitch(settings={"pmd-cpu-mask": mask}))
    port = structs.replace(PORT, queues=queues)
    assert set_port(root, port, present=True).changed
    assert set_bridge(root, SetRelayBridge(bridge=ONE, present=True)).changed
    options = {row["name"]: dict(row["options"][1]) for row in rows(root, "Interface", "name", "options")}
    assert options["vfu525400aa0001"].get("n_rxq") == of_vf
    assert options["relay0-up0"].get("n_rxq") == of_uplink
    assert "n_rxq" not in options["vfg525400aa0001"]
    assert switch.is_alive()


def test_a_port_that_is_there_is_not_made_anew_for_its_queues(root: Path, switch: Vswitchd) -> None:
    set_port(root, PORT, present=True)
    set_switch(root, SetSwitch(settings={"pmd-cpu-mask": "0x1e"}))
    assert not set_port(root, structs.replace(PORT, queues=4), present=True).changed
    assert switch.is_alive()


def test_what_is_seen_of_it(root: Path, switch: Vswitchd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenVSwitch, "answers", lambda _: True)
    assert read_relay(root, None).relay is None
    set_bridge(root, SetRelayBridge(bridge=TWO, present=True))
    view = read_relay(root, RELAY)
    assert [(port.name, port.bridge, port.type, port.up) for port in view.ports] == [
        ("relay0-up0", "relay0", "dpdk", True),
        ("relay0-up1", "relay0", "dpdk", True),
    ]
    assert view.ports[0].count("rx_packets") == 7
    assert view.ports[0].drops == {"rx_dropped": 2}
    assert not view.dpdk_started
    assert switch.is_alive()


@pytest.mark.parametrize(("set_to", "every_s"), [(None, 5.0), ("30000", 30.0), ("1000", 5.0), ("often", 5.0)])
def test_how_often_it_counts_is_said(root: Path, switch: Vswitchd, set_to: str | None, every_s: float) -> None:
    settings: dict[str, str | None] = {} if set_to is None else {"stats-update-interval": set_to}
    set_switch(root, SetSwitch(settings=settings))
    assert read_relay(root, RELAY).counted_every_s == every_s
    assert switch.is_alive()


def test_a_switch_that_does_nothing_is_said_and_nothing_stays(
    root: Path, switch: Vswitchd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ovsdb, "TIMEOUT_S", 0.3)
    switch.deaf = True
    with pytest.raises(Problem) as caught:
        set_bridge(root, SetRelayBridge(bridge=ONE, present=True))
    assert caught.value.code == "switch-silent"
    assert names(root, "Bridge") == []


def test_others_changes_are_not_lost(root: Path, switch: Vswitchd) -> None:
    """Somebody adds a bridge between our looking and our writing: both are there after."""
    tries = 0
    spec = relay_bridge.BridgeSpec(name="ours", ports=(), mtu=1500)

    def work(transaction: Any) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            add_bridge(root, "theirs")
        relay_bridge._insert(transaction, database, spec)

    with Database(root) as database:
        database.change(work)
    assert tries == 2
    assert names(root, "Bridge") == ["ours", "theirs"]
    assert switch.is_alive()


def test_what_the_database_refuses_is_said(root: Path, switch: Vswitchd) -> None:
    def work(transaction: Any) -> None:
        bridge = transaction.insert(database.table("Bridge"))
        bridge.name = "x"
        bridge.flood_vlans = [70000]
        database.switch.bridges = [bridge]

    with Database(root) as database, pytest.raises(Problem, match="70000") as caught:
        database.change(work)
    assert caught.value.code == "switch-refused"
    assert switch.is_alive()


def test_where_no_database_is_that_is_said_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovsdb, "TIMEOUT_S", 0.1)
    with pytest.raises(Problem) as caught, Database(tmp_path):
        pass
    assert caught.value.code == "switch-silent"


def test_without_the_binding_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ovs.db", None)
    with pytest.raises(Problem, match="python3-openvswitch") as caught, Database(tmp_path):
        pass
    assert caught.value.code == "switch-library-missing"
