"""OVN's northbound database as the steps ask it: a real ovsdb-server with OVN's own schema, where that is there."""

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
from ovs_database import TOOLS, find_schema, find_tool, needed

from vferry.controller.configuration import ControllerConfiguration, OvnSettings, read_controller_configuration
from vferry.controller.northbound import Northbound
from vferry.controller.northbound import ask as ask_northbound
from vferry.controller.state import State
from vferry.host.api import Done, ReleaseClaim, SetBinding
from vferry.host.openvswitch import ask
from vferry.host.ovsdb import Replica
from vferry.model.ovn import ANY_MAC, NORTHBOUND, KnownPort, LogicalPort
from vferry.model.problem import Problem

BEFORE = LogicalPort(name="web-0", requested_chassis="c1")
BOTH = LogicalPort(name="web-0", requested_chassis="c1,c2", activation_strategy="rarp")
AFTER = LogicalPort(name="web-0", requested_chassis="c2")
OPTIONS = {"requested-chassis": "c1", "qos_max_rate": "1000000"}


@dataclass(frozen=True)
class Served:
    """A database with one port of one switch, and how it is asked."""

    settings: OvnSettings
    path: Path

    def options(self) -> dict[str, str]:
        select = {"op": "select", "table": "Logical_Switch_Port", "where": [], "columns": ["options"]}
        ((row,),) = (each["rows"] for each in transact(self.path, select))
        return dict(row["options"][1])


@pytest.fixture(params=["unix", "ssl"])
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    """Such a one, asked by a socket or over TLS."""
    needed()
    schema = find_schema("ovn/ovn-nb.ovsschema")
    if schema is None:
        why = "NOT TESTED: of OVN, its schema is missing; `make fast` gets it"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    tool, server = (find_tool(name) or name for name in TOOLS)
    database, path = tmp_path / "nb.db", tmp_path / "nb.sock"
    subprocess.run([tool, "create", str(database), str(schema)], check=True, capture_output=True)
    words = [server, str(database), f"--remote=punix:{path}", f"--unixctl={tmp_path / 'ctl'}", "--no-chdir"]
    settings = OvnSettings(northbound=f"unix:{path}")
    if request.param == "ssl":
        port = free_port()
        settings = over_tls(tmp_path, port)
        words += [f"--remote=pssl:{port}:127.0.0.1", f"--ca-cert={settings.ca}"]
        words += [f"--private-key={tmp_path}/server-key.pem", f"--certificate={tmp_path}/server.pem"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            while not answers(path):
                assert process.poll() is None
            transact(path, {"op": "insert", "table": "NB_Global", "row": {}})
            row = {"name": "web-0", "options": ["map", [[key, value] for key, value in OPTIONS.items()]]}
            transact(
                path,
                {"op": "insert", "table": "Logical_Switch_Port", "row": row, "uuid-name": "p"},
                {"op": "insert", "table": "Logical_Switch", "row": {"name": "ls", "ports": ["named-uuid", "p"]}},
            )
            yield Served(settings, path)
        finally:
            process.terminate()
            process.wait(10)


def answers(path: Path) -> bool:
    try:
        return bool(ask(path, "list_dbs", []))
    except (FileNotFoundError, ConnectionRefusedError):
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def over_tls(folder: Path, port: int) -> OvnSettings:
    """With keys and certificates of a CA's for both sides."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name in ("server", "client"):
        made = ca.issue_cert(f"{name}.example")
        made.private_key_pem.write_to_path(str(folder / f"{name}-key.pem"))
        made.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
    return OvnSettings(
        northbound=f"ssl:127.0.0.1:{port}",
        private_key=str(folder / "client-key.pem"),
        certificate=str(folder / "client.pem"),
        ca=str(folder / "ca.pem"),
    )


def transact(path: Path, *operations: dict[str, Any]) -> Any:
    answer = ask(path, "transact", ["OVN_Northbound", *operations])
    assert all("error" not in each for each in answer if each), answer
    return answer


async def test_where_a_port_may_be_bound_there_and_back(served: Served) -> None:
    """What else is said of it stays."""
    northbound = Northbound(served.settings)
    assert await northbound.ports(["web-0", "web-9"]) == {"web-0": KnownPort(binding=BEFORE)}
    assert await northbound.call(SetBinding(port=BOTH, awaited=False)) == Done(detail="c1,c2")
    assert served.options() == OPTIONS | {"requested-chassis": "c1,c2", "activation-strategy": "rarp"}
    assert not (await northbound.call(SetBinding(port=BOTH, awaited=False))).changed
    assert (await northbound.ports(["web-0"]))["web-0"].binding == BOTH
    await northbound.call(SetBinding(port=AFTER, awaited=False))
    assert served.options() == OPTIONS | {"requested-chassis": "c2"}
    await northbound.call(SetBinding(port=LogicalPort(name="web-0"), awaited=False))
    assert served.options() == {"qos_max_rate": "1000000"}
    await northbound.call(SetBinding(port=BEFORE, awaited=False))
    assert served.options() == OPTIONS


OUT = {"type": "localnet", "options": ["map", [["network_name", "lan"]]]}


@pytest.mark.parametrize(
    ("switch", "beside", "localnets"),
    [
        ("ls", (), ()),
        ("ls", (OUT,), ("lan",)),
        ("ls", (OUT, {"type": "localnet", "options": ["map", [["network_name", "dmz"]]]}), ("dmz", "lan")),
        ("ls", ({"type": "localnet"},), ()),
        ("ls", ({**OUT, "type": "l2gateway"},), ()),
        ("other", (OUT,), ()),
    ],
)
async def test_where_the_switch_of_a_port_goes_out_to(
    served: Served, switch: str, beside: tuple[dict[str, Any], ...], localnets: tuple[str, ...]
) -> None:
    transact(served.path, {"op": "insert", "table": "Logical_Switch", "row": {"name": "other"}})
    for at, row in enumerate(beside):
        insert = {"op": "insert", "table": "Logical_Switch_Port", "row": {"name": f"ln-{at}", **row}, "uuid-name": "p"}
        added, where = [["ports", "insert", ["named-uuid", "p"]]], [["name", "==", switch]]
        transact(served.path, insert, {"op": "mutate", "table": "Logical_Switch", "where": where, "mutations": added})
    known = await Northbound(served.settings).ports(["web-0"])
    assert known == {"web-0": KnownPort(binding=BEFORE, localnets=localnets)}


A, B = "52:54:00:00:00:0a", "52:54:00:00:00:0b"


@pytest.mark.parametrize(
    ("row", "known"),
    [
        ({"addresses": f"{A.upper()} 10.0.0.2 fd00::2"}, {"macs": (A,)}),
        ({"addresses": ["set", [B, f"{A} dynamic", "unknown"]]}, {"macs": (A, B, ANY_MAC)}),
        ({"addresses": "dynamic 10.0.0.2", "dynamic_addresses": f"{A} 10.0.0.2"}, {"macs": (A,)}),
        ({"addresses": "dynamic"}, {}),
        ({"addresses": "router", "type": "router"}, {"macs": ("router",), "type": "router"}),
        ({"port_security": ["set", [f"{B} 10.0.0.3", A]]}, {"senders": (A, B)}),
        ({"parent_name": "pod-0", "tag": 7}, {"parent": "pod-0"}),
        ({"parent_name": ""}, {}),
    ],
)
async def test_whose_a_port_is(served: Served, row: dict[str, Any], known: dict[str, Any]) -> None:
    where = [["name", "==", "web-0"]]
    transact(served.path, {"op": "update", "table": "Logical_Switch_Port", "where": where, "row": row})
    said = await Northbound(served.settings).ports(["web-0"])
    assert said == {"web-0": KnownPort(binding=BEFORE, **known)}


async def test_what_it_does_not_have_is_said(served: Served) -> None:
    northbound = Northbound(served.settings)
    with pytest.raises(Problem) as caught:
        await northbound.call(SetBinding(port=LogicalPort(name="web-9"), awaited=False))
    assert (caught.value.code, bool(caught.value.remedy)) == ("logical-port-unknown", True)
    with pytest.raises(Problem) as caught:
        await northbound.call(ReleaseClaim())
    assert caught.value.code == "operation-unknown"


async def test_that_northd_passes_it_on_is_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the change was there before: who asked for it then may not have waited."""
    monkeypatch.setattr("vferry.controller.northbound.NORTHD_S", 0.2)
    northbound = Northbound(served.settings)
    for _ in range(2):
        with pytest.raises(Problem, match="ovn-northd") as caught:
            await northbound.call(SetBinding(port=BOTH))
        assert (caught.value.code, bool(caught.value.remedy)) == ("northd-silent", True)
    assert served.options() == OPTIONS | {"requested-chassis": "c1,c2", "activation-strategy": "rarp"}
    transact(served.path, {"op": "update", "table": "NB_Global", "where": [], "row": {"sb_cfg": 1}})
    assert not (await northbound.call(SetBinding(port=BOTH))).changed
    with pytest.raises(Problem, match="ovn-northd"):
        await northbound.call(SetBinding(port=AFTER))


async def test_a_change_that_is_refused_is_said(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def commit(self: Replica, *_: object) -> None:
        raise self.refused("constraint violation")

    monkeypatch.setattr(Replica, "commit", commit)
    with pytest.raises(Problem, match="constraint violation") as caught:
        await Northbound(served.settings).call(SetBinding(port=AFTER))
    assert caught.value.code == "northbound-refused"


async def test_one_that_does_not_answer_is_as_a_host_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps wait for it, and ask again."""
    monkeypatch.setattr("vferry.host.ovsdb.TIMEOUT_S", 0.1)
    northbound = Northbound(OvnSettings(northbound=f"unix:{tmp_path / 'nobody'}"))
    assert northbound.name == NORTHBOUND
    for asked in (northbound.call(SetBinding(port=AFTER)), northbound.ports(["web-0"])):
        with pytest.raises(Problem, match="nobody") as caught:
            await asked
        assert caught.value.code == "host-unreachable"
    with pytest.raises(Problem, match=r"\[ovn\] northbound") as caught:
        await Northbound(OvnSettings()).ports(["web-0"])
    assert caught.value.code == "northbound-unknown"


async def test_who_plans_is_told_what_it_says_or_why_it_says_nothing(served: Served, tmp_path: Path) -> None:
    state = State(root=tmp_path)
    assert "No northbound database" in str(await ask_northbound(state, ["web-0"]))
    keys = {name: value for name, value in msgspec.to_builtins(served.settings).items() if value}
    state.configuration.write_text("".join(("[ovn]\n", *(f'{key} = "{value}"\n' for key, value in keys.items()))))
    assert await ask_northbound(state, ["web-0", "web-9"]) == {"web-0": KnownPort(binding=BEFORE)}


async def test_without_the_binding_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ovs.db", None)
    with pytest.raises(Problem, match="python3-openvswitch") as caught:
        await Northbound(OvnSettings(northbound="unix:/x")).ports(["web-0"])
    assert caught.value.code == "switch-library-missing"


def read(directory: Path, text: str) -> ControllerConfiguration:
    state = State(root=directory)
    state.configuration.write_text(text)
    return read_controller_configuration(state, directory / "none.toml")


KEYS = "".join(f'{name} = "/etc/ovn/{name}.pem"\n' for name in ("private_key", "certificate", "ca"))


def test_the_settings(tmp_path: Path) -> None:
    assert read(tmp_path, "").ovn == OvnSettings()
    assert read(tmp_path, '[ovn]\nnorthbound = "tcp:192.0.2.1:6641"\n').ovn.northbound == "tcp:192.0.2.1:6641"
    found = read(tmp_path, f'[ovn]\nnorthbound = "ssl:a:6641,ssl:b:6641"\n{KEYS}').ovn
    assert (found.private_key, found.ca) == ("/etc/ovn/private_key.pem", "/etc/ovn/ca.pem")
    for wrong in ('[ovn]\nnorthbound = "http://a"\n', '[ovn]\nnorthbound = "ssl:a:6641"\n'):
        with pytest.raises(Problem, match="northbound") as caught:
            read(tmp_path, wrong)
        assert caught.value.code == "configuration-invalid"
