"""Open vSwitch: its bridges as its database has them, and its learning table, over sockets that speak as its own do."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ovn_chassis import Logical
from switch_ground import BRIDGE, UPLINK, switch

from vferry.host import openvswitch
from vferry.host.api import Done
from vferry.host.openvswitch import OpenVSwitch, RefusedError, ask
from vferry.host.relay_names import guest_name
from vferry.model.host import AttachmentKind, Bridge
from vferry.model.problem import Problem
from vferry.model.relay import SwitchAbilities

MAC = "52:54:00:aa:00:0b"
Answer = Callable[[str, list[Any]], bytes]


class Server:
    """A socket at which one call a connection is answered."""

    def __init__(self, path: Path, answer: Answer) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.asked: list[tuple[str, list[Any]]] = []
        self._answer = answer
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                wire, _ = self._listening.accept()
            except OSError:
                return
            # Who asked may hang up when it has all that it needs.
            with wire, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                request = msgspec.json.decode(wire.recv(1 << 16))
                self.asked.append((request["method"], request["params"]))
                for part in self._answer(request["method"], request["params"]).split(b"|"):
                    wire.sendall(part)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)


Serve = Callable[[Path, Answer], Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(path: Path, answer: Answer) -> Server:
        servers.append(Server(path, answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def result(value: Any) -> bytes:
    return msgspec.json.encode({"id": 0, "result": value, "error": None})


def failure(text: str) -> bytes:
    return msgspec.json.encode({"id": 0, "result": None, "error": text})


def one_of(*values: Any) -> Any:
    """A column's values as OVSDB writes them."""
    return values[0] if len(values) == 1 else ["set", list(values)]


NONE = one_of()


def database(ports: dict[str, dict[str, Any]], **bridge: Any) -> list[dict[str, Any]]:
    """The answer to the three selects: a bridge ovs0 with ports by name, which say what differs from a plain one."""
    row = {"name": "ovs0", "fail_mode": NONE, "controller": NONE}
    row |= {"ports": one_of(*(["uuid", f"port-{name}"] for name in ports)), **bridge}
    plain = {"tag": NONE, "trunks": NONE, "vlan_mode": NONE}
    rows = [
        {"_uuid": ["uuid", f"port-{name}"], "interfaces": ["uuid", f"if-{name}"], **plain, **port}
        for name, port in ports.items()
    ]
    numbers = {name: port.pop("ofport", at) for at, (name, port) in enumerate(ports.items(), start=1)}
    interfaces = [{"_uuid": ["uuid", f"if-{name}"], "name": name, "ofport": numbers[name]} for name in ports]
    return [{"rows": [row]}, {"rows": rows}, {"rows": interfaces}]


@pytest.mark.parametrize(
    ("port", "passed"),
    [
        ({}, None),
        ({"trunks": one_of(7, 42)}, (7, 42)),
        ({"trunks": 7}, (7,)),
        ({"tag": 7}, ()),
        ({"tag": 7, "vlan_mode": "access"}, ()),
        ({"tag": 7, "trunks": one_of(7, 9), "vlan_mode": "trunk"}, (7, 9)),
        ({"tag": 7, "trunks": one_of(0, 7, 9), "vlan_mode": "native-untagged"}, (9,)),
        ({"tag": 7, "vlan_mode": "native-tagged"}, tuple(vlan for vlan in range(1, 4095) if vlan != 7)),
        ({"tag": 7, "vlan_mode": "dot1q-tunnel"}, ()),
    ],
)
def test_what_a_port_passes(tmp_path: Path, serve: Serve, port: dict[str, Any], passed: tuple[int, ...] | None) -> None:
    serve(tmp_path / "run/openvswitch/db.sock", lambda *_: result(database({"pf0": port, "vnet0": {}})))
    (bridge,) = OpenVSwitch(tmp_path).bridges()
    assert (bridge.name, bridge.kind, bridge.ports) == ("ovs0", AttachmentKind.OPENVSWITCH, ("pf0", "vnet0"))
    assert bridge.vlans == ({} if passed is None else {"pf0": passed})


def test_a_port_that_could_not_be_opened_is_none(tmp_path: Path, serve: Serve) -> None:
    ports = {"pf0": {"ofport": -1}, "pf1": {"ofport": NONE}, "vnet0": {}}
    serve(tmp_path / "run/openvswitch/db.sock", lambda *_: result(database(ports)))
    assert OpenVSwitch(tmp_path).bridges()[0].ports == ("vnet0",)


def test_a_bond_of_its_own_is_left_out(tmp_path: Path, serve: Serve) -> None:
    ports = {"pf0": {"interfaces": one_of(["uuid", "if-pf0"], ["uuid", "if-pf1"])}, "pf1": {}}
    serve(tmp_path / "run/openvswitch/db.sock", lambda *_: result(database(ports)))
    assert OpenVSwitch(tmp_path).bridges()[0].ports == ("pf1",)


@pytest.mark.parametrize(
    ("settings", "controlled"),
    [({}, False), ({"fail_mode": "standalone"}, False), ({"fail_mode": "secure"}, True), ({"controller": "c"}, True)],
)
def test_a_bridge_is_up_where_it_is_and_may_be_a_controllers(
    tmp_path: Path, serve: Serve, settings: dict[str, Any], *, controlled: bool
) -> None:
    serve(tmp_path / "run/openvswitch/db.sock", lambda *_: result(database({}, **settings)))
    bridge = Bridge(name="ovs0", kind=AttachmentKind.OPENVSWITCH, vlan_filtering=True, controlled=controlled)
    assert OpenVSwitch(tmp_path).bridges() == (msgspec.structs.replace(bridge, up=False),)
    (tmp_path / "sys/class/net/ovs0").mkdir(parents=True)
    assert OpenVSwitch(tmp_path).bridges() == (bridge,)


def test_an_answer_may_come_in_pieces(tmp_path: Path, serve: Serve) -> None:
    pieces = result(database({"pf0": {}})).replace(b"}", b"}|")
    serve(tmp_path / "run/openvswitch/db.sock", lambda *_: pieces)
    assert [bridge.ports for bridge in OpenVSwitch(tmp_path).bridges()] == [("pf0",)]


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense", b'{"id": 0, "result": [{"rows": [{"name"', failure("no"), result(None), result([{}])]
)
def test_where_nothing_sensible_answers_there_is_no_open_vswitch(tmp_path: Path, serve: Serve, answer: bytes) -> None:
    assert OpenVSwitch(tmp_path).bridges() == ()
    serve(tmp_path / "run/openvswitch/db.sock", lambda *_: answer)
    assert OpenVSwitch(tmp_path).bridges() == ()
    assert OpenVSwitch(tmp_path).teach("vnet0", MAC, hold=True) == Done(changed=False)


def test_nobody_is_waited_for_longer_than_agreed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvswitch, "TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        with pytest.raises(TimeoutError):
            ask(tmp_path / "s", "x", [])


def test_a_path_may_be_longer_than_a_socket_s_address(tmp_path: Path, serve: Serve) -> None:
    serve(tmp_path / "s", lambda *_: result("here"))
    folder = tmp_path / ("x" * 108)
    folder.mkdir()
    (tmp_path / "s").rename(folder / "s")
    assert ask(folder / "s", "x", []) == "here"


def test_a_flood_ends(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvswitch, "LIMIT", 1000)
    serve(tmp_path / "s", lambda *_: b"{" * 2000 + b"|" + b"{" * 100)
    with pytest.raises(ValueError, match="no answer to x"):
        ask(tmp_path / "s", "x", [])


def test_a_refusal_is_told(tmp_path: Path, serve: Serve) -> None:
    serve(tmp_path / "s", lambda *_: failure("no such bridge\n"))
    with pytest.raises(RefusedError, match=r"^no such bridge$"):
        ask(tmp_path / "s", "x", [])


class Switch:
    """A switch's table, with one entry that was learnt; `old`: it cannot be told anything."""

    def __init__(self, *, old: bool = False) -> None:
        self.entries = {(0, MAC): ("1", "12"), (7, "52:54:00:00:00:01"): ("2", "static")}
        self.old = old

    def __call__(self, command: str, arguments: list[Any]) -> bytes:
        if command == "fdb/show":
            rows = [f"{port:>5}  {vlan:>4}  {mac}  {age}" for (vlan, mac), (port, age) in self.entries.items()]
            return result("\n".join([" port  VLAN  MAC                Age", *rows]) + "\n")
        if self.old:
            return failure(f'"{command}" is not a valid command (use "list-commands" to see a list)\n')
        if command == "fdb/add":
            _, port, vlan, mac = arguments
            self.entries[int(vlan), mac] = ({"pf0": "1", "vnet0": "2"}[port], "static")
            return result("Overriding already existing dynamic entry on 1\n")
        _, vlan, mac = arguments
        if self.entries.get((int(vlan), mac), ("", ""))[1] != "static":
            return failure("could not find static mac entry\n")
        del self.entries[int(vlan), mac]
        return result("")


def running(root: Path, serve: Serve, switch: Switch, **vnet0: Any) -> OpenVSwitch:
    serve(root / "run/openvswitch/db.sock", lambda *_: result(database({"pf0": {}, "vnet0": dict(vnet0)})))
    (root / "run/openvswitch/ovs-vswitchd.pid").write_text("42\n")
    serve(root / "run/openvswitch/ovs-vswitchd.42.ctl", switch)
    return OpenVSwitch(root)


@pytest.mark.parametrize(("settings", "vlan"), [({}, 0), ({"tag": 42}, 42)])
def test_what_is_held_stays_until_it_is_forgotten(
    tmp_path: Path, serve: Serve, settings: dict[str, Any], vlan: int
) -> None:
    switch = Switch()
    ours = running(tmp_path, serve, switch, **settings)
    assert ours.teach("vnet0", MAC, hold=True) == Done(detail=f"{MAC} is behind vnet0")
    assert switch.entries[vlan, MAC] == ("2", "static")
    assert not ours.teach("vnet0", MAC, hold=True).changed
    assert ours.teach("pf0", MAC).changed
    assert switch.entries == {(7, "52:54:00:00:00:01"): ("2", "static")}
    assert ours.teach("pf0", MAC) == Done(changed=False)


def test_what_is_no_port_of_it_is_left_alone(tmp_path: Path, serve: Serve) -> None:
    switch = Switch()
    before = dict(switch.entries)
    assert running(tmp_path, serve, switch).teach("macvtap0", MAC, hold=True) == Done(changed=False)
    assert switch.entries == before


def test_an_older_one_learns_by_frames(tmp_path: Path, serve: Serve) -> None:
    done = running(tmp_path, serve, Switch(old=True)).teach("vnet0", MAC, hold=True)
    assert done == Done(changed=False, detail="this Open vSwitch learns by frames alone")


def test_a_switch_that_does_not_answer_is_said(tmp_path: Path, serve: Serve) -> None:
    ours = running(tmp_path, serve, Switch())
    (tmp_path / "run/openvswitch/ovs-vswitchd.pid").unlink()
    with pytest.raises(Problem, match=f"The bridge ovs0 does not take {MAC} for vnet0") as caught:
        ours.teach("vnet0", MAC, hold=True)
    assert caught.value.code == "bridge-refused"


@pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")
def test_a_real_one_says_and_takes_the_same(tmp_path: Path) -> None:
    port = Logical(name="guest1", mac=MAC, address="10.0.0.1")
    tap, trunks = guest_name(MAC), {"trunks": ["set", [7, 9]]}
    with switch(tmp_path) as made:
        made.plug(port, vlan=7)
        made.store.transact({"op": "update", "table": "Port", "where": [["name", "==", UPLINK]], "row": trunks})
        ours = OpenVSwitch(made.root)
        (bridge,) = ours.bridges()
        assert (bridge.name, sorted(bridge.ports)) == (BRIDGE, sorted((BRIDGE, UPLINK, tap)))
        assert (bridge.vlans[tap], bridge.vlans[UPLINK]) == ((), (7, 9))
        for name, hold, changed, learnt in (
            (tap, True, True, [(7, "static")]),
            (tap, True, False, [(7, "static")]),
            (UPLINK, False, True, []),
        ):
            assert ours.teach(name, MAC, hold=hold).changed is changed
            assert [(vlan, age) for vlan, (_, age) in ours._learnt(BRIDGE, MAC).items()] == learnt


def abilities(**said: Any) -> bytes:
    row = {"other_config": ["map", []], "ovs_version": NONE, "dpdk_version": NONE, "dpdk_initialized": False, **said}
    return result([{"rows": [row]}])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, SwitchAbilities(version="3.4.0")),
        ({"ovs_version": "3.1.0", "dpdk_version": "none"}, SwitchAbilities(version="3.1.0")),
        (
            {
                "ovs_version": "3.5.0",
                "dpdk_version": "DPDK 24.11.1",
                "dpdk_initialized": True,
                "other_config": ["map", [["dpdk-init", "true"], ["pmd-cpu-mask", "0x2"]]],
            },
            SwitchAbilities(
                version="3.5.0",
                dpdk_version="DPDK 24.11.1",
                dpdk_started=True,
                settings={"dpdk-init": "true", "pmd-cpu-mask": "0x2"},
            ),
        ),
    ],
)
def test_what_a_relay_needs_to_know(
    tmp_path: Path, serve: Serve, said: dict[str, Any], expected: SwitchAbilities
) -> None:
    serve(tmp_path / "run/openvswitch/db.sock", lambda *_: abilities(**said))
    (tmp_path / "run/openvswitch/ovs-vswitchd.pid").write_text("42\n")
    serve(tmp_path / "run/openvswitch/ovs-vswitchd.42.ctl", lambda *_: result("ovs-vswitchd (Open vSwitch) 3.4.0\n"))
    assert OpenVSwitch(tmp_path).abilities() == expected


def test_a_switch_of_which_only_the_database_is_there_is_told_as_that(tmp_path: Path, serve: Serve) -> None:
    serve(tmp_path / "run/openvswitch/db.sock", lambda *_: abilities(ovs_version="3.5.0", dpdk_initialized=True))
    (tmp_path / "run/openvswitch/ovs-vswitchd.pid").write_text("42\n")
    assert OpenVSwitch(tmp_path).abilities() == SwitchAbilities(version="3.5.0", dpdk_started=True, answers=False)


@pytest.mark.parametrize(
    ("answer", "version"),
    [(result("ovs-vswitchd (Open vSwitch) 3.1.0\n"), "3.1.0"), (result("odd"), None), (failure("no"), None)],
)
def test_a_version_that_only_the_switch_says(tmp_path: Path, serve: Serve, answer: bytes, version: str | None) -> None:
    serve(tmp_path / "run/openvswitch/db.sock", lambda *_: abilities())
    (tmp_path / "run/openvswitch/ovs-vswitchd.pid").write_text("42\n")
    serve(tmp_path / "run/openvswitch/ovs-vswitchd.42.ctl", lambda *_: answer)
    found = OpenVSwitch(tmp_path).abilities()
    assert found is not None
    assert found.version == version


@pytest.mark.parametrize("answer", [b"", failure("no"), result([]), result([{"rows": []}]), result([{"rows": [{}]}])])
def test_without_sense_it_is_able_of_nothing(tmp_path: Path, serve: Serve, answer: bytes) -> None:
    assert OpenVSwitch(tmp_path).abilities() is None
    serve(tmp_path / "run/openvswitch/db.sock", lambda *_: answer)
    assert OpenVSwitch(tmp_path).abilities() is None


@pytest.mark.parametrize(("value", "offloads"), [(None, False), ("false", False), ("odd", False), ("True", True)])
def test_whether_nics_are_to_do_of_its_flows_what_they_can(
    tmp_path: Path, serve: Serve, value: str | None, *, offloads: bool
) -> None:
    settings = [] if value is None else [["hw-offload", value]]
    serve(
        tmp_path / "run/openvswitch/db.sock", lambda *_: abilities(ovs_version="3.5.0", other_config=["map", settings])
    )
    found = OpenVSwitch(tmp_path).abilities()
    assert found is not None
    assert found.offloads is offloads


@pytest.mark.parametrize(
    ("version", "release"), [(None, (0, 0)), ("3.5.0", (3, 5)), ("3.1", (3, 1)), ("odd", (0, 0)), ("3.x", (0, 0))]
)
def test_a_release(version: str | None, release: tuple[int, int]) -> None:
    assert SwitchAbilities(version=version).release == release
