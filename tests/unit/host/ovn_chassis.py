"""OVN itself, with two chassis: its daemons, on a switch in user space in network namespaces without names.

    with ovn(tmp_path) as net:
        net.add_switch("ls", web, Logical(name="peer-0", mac="52:54:00:00:00:02", address="10.0.0.2"))
        here = net.chassis["c1"].plug(web)        # a namespace that is the guest, with its address on eth0
        peer = net.chassis["c2"].plug(...)
        net.settle()                              # until what was asked for is in the switches' flows
        here.wire.send(frame)                     # its frames: a socket of AF_PACKET on its eth0
        here.endpoint(socket.SOCK_STREAM, 80)     # its TCP, through its own kernel

`net.settings` is what `Northbound` asks it by, and `net.chassis["c1"].root` what an agent has as its root there. Guests
may send anything: nothing of them is checked but by OVN (`ovn_frames` makes frames, and says whom they reach). It is
there within about a second, needs root, and has no guest of QEMU's. Each daemon may be ended, and started again:
`net.northd`, `net.southbound.daemon`, `net.northbound.daemon`, a chassis' `controller` and `switch`.
"""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from ovs_database import TOOLS, find_schema, find_tool, needed

from vferry.controller.configuration import OvnSettings
from vferry.host.openvswitch import ask
from vferry.host.relay_names import guest_name
from vferry.trial.namespace import Namespace, run

T = TypeVar("T")
PATIENCE_S = 60.0
NAMES = ("c1", "c2")
DAEMONS = ("ovs-vswitchd", "ovn-northd", "ovn-controller")
GENEVE, VXLAN = "geneve", "vxlan"
UNDERLAY = "192.0.2.{}"
ETH_P_ALL, CLONE_NEWNET, SIOCETHTOOL, ETHTOOL_STXCSUM = 0x0003, 0x40000000, 0x8946, 0x17

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")


@dataclass(frozen=True, kw_only=True)
class Logical:
    """A logical port of a switch's, for one MAC and address; `secure`: it may send as nobody else."""

    name: str
    mac: str
    address: str
    secure: bool = True


class Daemon:
    """One that may be ended, and started again."""

    def __init__(self, folder: Path, name: str, words: tuple[str, ...], inside: tuple[str, ...] = ()) -> None:
        self._log = folder / f"{name}.log"
        places = {
            "OVS_RUNDIR": folder / "run/openvswitch",
            "OVN_RUNDIR": folder / "run/ovn",
            **dict.fromkeys(("OVS_DBDIR", "OVN_DBDIR", "OVS_SYSCONFDIR", "OVN_SYSCONFDIR"), folder),
        }
        for each in places.values():
            each.mkdir(parents=True, exist_ok=True)
        self._log.touch()
        tool = find_tool(words[0]) or words[0]
        logs = ("-vconsole:off", f"--log-file={self._log}")
        self._argv = ("setpriv", "--pdeathsig", "KILL", *inside, tool, *words[1:], *logs)
        self._environment = {**os.environ, **{name: str(path) for name, path in places.items()}}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as said:
            self._process = subprocess.Popen(self._argv, stdout=said, stderr=said, env=self._environment)

    def end(self) -> None:
        """Kills it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def check(self) -> None:
        """Fails if it has ended by itself."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise AssertionError(f"it has ended with {code}\n{self.log()}")

    def log(self) -> str:
        """What it has said last."""
        return "\n".join((f"--- {self._log}", *self._log.read_text(errors="replace").splitlines()[-15:]))


class Store:
    """A database, by its socket."""

    def __init__(self, folder: Path, path: Path, schema: str, name: str) -> None:
        self.path = path
        self._name = name
        path.parent.mkdir(parents=True, exist_ok=True)
        database = folder / f"{name}.db"
        source = find_schema(schema)
        subprocess.run([find_tool(TOOLS[0]) or "", "create", str(database), str(source)], check=True)
        control = f"--unixctl={path.parent / name}.ctl"
        self.daemon = Daemon(folder, name, (TOOLS[1], str(database), f"--remote=punix:{path}", control))

    @property
    def remote(self) -> str:
        return f"unix:{self.path}"

    def answers(self) -> bool:
        try:
            return bool(ask(self.path, "list_dbs", []))
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    def transact(self, *operations: Mapping[str, Any]) -> list[Any]:
        answer = ask(self.path, "transact", [self._name, *operations])
        assert all("error" not in each for each in answer if each), answer
        return list(answer)

    def rows(self, table: str, *columns: str, where: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        select = {"op": "select", "table": table, "where": list(where), "columns": list(columns)}
        found: list[dict[str, Any]] = self.transact(select)[0]["rows"]
        return found


class Guest:
    """A namespace that is a guest; eth0 has its MAC and address."""

    def __init__(self, namespace: Namespace, port: Logical) -> None:
        self.namespace = namespace
        self.port = port
        self._sockets: list[socket.socket] = []

    @cached_property
    def wire(self) -> socket.socket:
        """Its frames, both ways, as they are on its NIC."""
        made = self._made(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        made.bind(("eth0", ETH_P_ALL))
        return made

    def forget_wire(self) -> None:
        """Its eth0 is another one from now on."""
        self.__dict__.pop("wire", None)

    def endpoint(self, kind: int, port: int = 0) -> socket.socket:
        """One of its kernel's sockets, for IPv4, bound to its address."""
        made = self._made(socket.AF_INET, kind, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((self.port.address, port))
        return made

    def close(self) -> None:
        for each in self._sockets:
            each.close()

    def _made(self, family: int, kind: int, protocol: int) -> socket.socket:
        made = inside(self.namespace, lambda: socket.socket(family, kind, protocol))
        made.settimeout(1.0)
        self._sockets.append(made)
        return made


class Chassis:
    """A host as OVN has it. Its folder is what an agent has as its root."""

    def __init__(self, stack: ExitStack, folder: Path, name: str, southbound: str, encapsulation: str) -> None:
        self.name, self.root, self._stack = name, folder, stack
        self._encapsulation = encapsulation
        self.namespace = stack.enter_context(Namespace())
        self.address = UNDERLAY.format(NAMES.index(name) + 1)
        self._inside = tuple(self.namespace.inside())
        self.store = Store(folder, folder / "run/openvswitch/db.sock", "openvswitch/vswitch.ovsschema", "Open_vSwitch")
        self.switch = self._daemon("ovs-vswitchd")
        self.controller = self._daemon("ovn-controller")
        self._southbound = southbound

    def configure(self) -> None:
        """What makes it a chassis, and a bridge in user space behind which the other one is.

        Its integration bridge is there before ovn-controller, which else makes it, and of 23.03 may end with a
        segmentation fault where the switch takes its time.
        """
        told = {
            "system-id": self.name,
            "ovn-remote": self._southbound,
            "ovn-encap-type": self._encapsulation,
            "ovn-encap-ip": self.address,
            "ovn-bridge-datapath-type": "netdev",
        }
        self.store.transact({"op": "insert", "table": "Open_vSwitch", "row": {"external_ids": mapped(told)}})
        self.store.transact(
            *_port("phy", type="internal"),
            *_port("under"),
            _insert("Bridge", "b", name="phy", datapath_type="netdev", ports=_named("phy", "under")),
            _mutate("Open_vSwitch", [], "bridges", "b"),
        )
        self.store.transact(
            *_port("br-int", type="internal"),
            _insert("Bridge", "b", name="br-int", datapath_type="netdev", fail_mode="secure", ports=_named("br-int")),
            _mutate("Open_vSwitch", [], "bridges", "b"),
        )

    def link(self) -> None:
        """Gives the bridge of the underlay its address, once both are there."""
        devices, way_in = Path(f"/proc/{self.namespace.pid}/net/dev"), self.root / "run/openvswitch/br-int.mgmt"
        until(lambda: "phy:" in devices.read_text() and way_in.exists(), self.switch)
        self.namespace.ip(f"address add {self.address}/24 dev phy", "link set phy up", "link set lo up")

    def plug(self, port: Logical, name: str = "", *, bridge: str = "br-int") -> Guest:
        """A guest whose NIC is a port on the integration bridge, or on another one, under the name of the logical port.

        The port is called as vferry would call it, or otherwise.
        """
        guest = Guest(self._stack.enter_context(Namespace()), port)
        self._stack.callback(guest.close)
        name = name or guest_name(port.mac)
        here, there = str(self.namespace.pid), str(guest.namespace.pid)
        run(["ip", "link", "add", "name", name, "netns", here, "type", "veth", "peer", "name", "eth0", "netns", there])
        guest.namespace.run(["ip", "link", "set", "eth0", "address", port.mac])
        for where, nic in ((self.namespace, name), (guest.namespace, "eth0")):
            inside(where, partial(with_checksums, nic))
            where.run(["ip", "link", "set", nic, "up"])
        guest.namespace.run(["ip", "address", "add", f"{port.address}/24", "dev", "eth0"])
        self.join(name, port, bridge)
        return guest

    def join(self, nic: str, port: Logical, bridge: str = "br-int") -> None:
        """Has a NIC of its namespace be a port, under the name of the logical port."""
        self.store.transact(
            *_port(nic, external_ids=_ids(port)),
            _mutate("Bridge", [["name", "==", bridge]], "ports", nic),
        )

    def tell_ovn(self, port: Logical, *, here: bool) -> None:
        """Has what was plugged be the logical port, or nobody's."""
        row = {"external_ids": _ids(port) if here else mapped({})}
        where = [["name", "==", guest_name(port.mac)]]
        self.store.transact({"op": "update", "table": "Interface", "where": where, "row": row})

    def _daemon(self, name: str) -> Daemon:
        folder = self.root / "run" / ("ovn" if name == "ovn-controller" else "openvswitch")
        return Daemon(self.root, name, (name, self.store.remote, f"--pidfile={folder}/{name}.pid"), self._inside)


class Ovn:
    """All of it."""

    def __init__(self, stack: ExitStack, folder: Path, encapsulation: str) -> None:
        central = folder / "central"
        self.northbound = Store(central, central / "nb.sock", "ovn/ovn-nb.ovsschema", "OVN_Northbound")
        self.southbound = Store(central, central / "sb.sock", "ovn/ovn-sb.ovsschema", "OVN_Southbound")
        words = ("ovn-northd", f"--ovnnb-db={self.northbound.remote}", f"--ovnsb-db={self.southbound.remote}")
        self.northd = Daemon(central, "ovn-northd", words)
        self.encapsulation, remote = encapsulation, self.southbound.remote
        self.chassis = {name: Chassis(stack, folder / name, name, remote, encapsulation) for name in NAMES}
        self.settings = OvnSettings(northbound=self.northbound.remote)

    @property
    def stores(self) -> tuple[Store, ...]:
        return self.northbound, self.southbound, *(each.store for each in self.chassis.values())

    def add_switch(self, name: str, *ports: Logical) -> None:
        """A logical switch with its ports."""
        rows = [
            _insert(
                "Logical_Switch_Port",
                f"p{at}",
                name=port.name,
                addresses=f"{port.mac} {port.address}",
                **({"port_security": f"{port.mac} {port.address}"} if port.secure else {}),
            )
            for at, port in enumerate(ports)
        ]
        names = _named(*(f"p{at}" for at in range(len(ports))))
        self.northbound.transact(*rows, _insert("Logical_Switch", "ls", name=name, ports=names))

    def give(self, table: str, name: str, column: str, of: str, *rows: Mapping[str, Any]) -> None:
        """Gives a switch, or a port, rows of another table, and has all chassis know."""
        new = [_insert(of, f"n{at}", **row) for at, row in enumerate(rows)]
        names = (f"n{at}" for at in range(len(rows)))
        self.northbound.transact(*new, _mutate(table, [["name", "==", name]], column, *names))
        self.settle()

    def route(self, **ends: tuple[str, str]) -> None:
        """A router between switches, with a MAC and an address of its own on each."""
        for switch in ends:
            options = mapped({"router-port": f"to-{switch}"})
            port = {"name": f"from-{switch}", "type": "router", "addresses": "router", "options": options}
            self.give("Logical_Switch", switch, "ports", "Logical_Switch_Port", port)
        rows = [
            _insert("Logical_Router_Port", switch, name=f"to-{switch}", mac=mac, networks=f"{address}/24")
            for switch, (mac, address) in ends.items()
        ]
        self.northbound.transact(*rows, _insert("Logical_Router", "lr", name="lr", ports=_named(*ends)))
        self.settle()

    def places(self, port: str) -> list[str]:
        """The chassis that have a logical port: the main one, then others."""
        names = {row["_uuid"][1]: row["name"] for row in self.southbound.rows("Chassis", "_uuid", "name")}
        where = (["logical_port", "==", port],)
        (row,) = self.southbound.rows("Port_Binding", "chassis", "additional_chassis", where=where)
        return [names[each] for column in ("chassis", "additional_chassis") for each in _identities(row[column])]

    def settle(self) -> None:
        """Waits until all chassis have done what the northbound database says (as ``ovn-nbctl --wait=hv sync``).

        What a chassis says in its turn, such as that it has a port, others may not have done yet: see `places`.
        """
        bump = {"op": "mutate", "table": "NB_Global", "where": [], "mutations": [["nb_cfg", "+=", 1]]}
        self.northbound.transact(bump)
        until(self._settled, *self.daemons)

    def _settled(self) -> bool:
        (row,) = self.northbound.rows("NB_Global", "nb_cfg", "hv_cfg")
        return bool(row["hv_cfg"] == row["nb_cfg"])

    @property
    def daemons(self) -> tuple[Daemon, ...]:
        chassis = self.chassis.values()
        return (
            *(store.daemon for store in self.stores),
            self.northd,
            *(each.switch for each in chassis),
            *(each.controller for each in chassis),
        )

    def start(self) -> None:
        stores = [store.daemon for store in self.stores]
        for daemon in stores:
            daemon.start()
        until(lambda: all(store.answers() for store in self.stores), *stores)
        self.northbound.transact(_insert("NB_Global", "nb"))
        first, second = (str(each.namespace.pid) for each in self.chassis.values())
        end = ["ip", "link", "add", "name", "under", "netns", first]
        run([*end, "type", "veth", "peer", "name", "under", "netns", second])
        for each in self.chassis.values():
            each.namespace.run(["ip", "link", "set", "under", "up"])
            each.configure()
            each.switch.start()
        self.northd.start()
        for each in self.chassis.values():
            each.link()
            each.controller.start()
        tunnel = (["type", "==", self.encapsulation],)
        switches = [each.store for each in self.chassis.values()]
        until(lambda: all(each.rows("Interface", "name", where=tunnel) for each in switches), *self.daemons)
        self.settle()


@contextmanager
def ovn(folder: Path, encapsulation: str = GENEVE) -> Iterator[Ovn]:
    """Such a one below a folder. What cannot start says why; all of it is gone afterwards."""
    needed(*DAEMONS)
    with ExitStack() as stack:
        made = Ovn(stack, folder, encapsulation)
        for daemon in made.daemons:
            stack.callback(daemon.end)
        made.start()
        yield made


def until(reached: Callable[[], object], *daemons: Daemon, within_s: float = PATIENCE_S) -> None:
    """Waits until something is so. Fails with what the daemons have said, if that takes long, or if one has ended."""
    ends = time.monotonic() + within_s
    while not reached():
        for daemon in daemons:
            daemon.check()
        assert time.monotonic() < ends, "\n".join(("it does not come to it", *(each.log() for each in daemons)))
        time.sleep(0.01)


def inside(namespace: Namespace, work: Callable[[], T]) -> T:
    """Does something in a namespace. A socket that is made there stays there."""

    def entered() -> T:
        libc = ctypes.CDLL(None, use_errno=True)  # os.setns exists only from Python 3.12 on
        with Path(f"/proc/{namespace.pid}/ns/net").open("rb") as handle:
            assert libc.setns(handle.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(entered).result()


def with_checksums(nic: str) -> None:
    """Has this namespace's kernel put checksums into what it sends: it leaves them to a NIC, and a veth has no such."""
    value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_STXCSUM, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, SIOCETHTOOL, struct.pack("16sP16x", nic.encode(), ctypes.addressof(value)))


def mapped(words: Mapping[str, Any]) -> list[Any]:
    """A column of keys and values."""
    return ["map", [[key, value] for key, value in words.items()]]


def acl(direction: str, priority: int, match: str, action: str) -> dict[str, Any]:
    """A row by which OVN filters."""
    return {"direction": f"{direction}-lport", "priority": priority, "match": match, "action": action}


def _insert(table: str, identity: str, /, **row: Any) -> dict[str, Any]:
    return {"op": "insert", "table": table, "row": row, "uuid-name": identity}


def _ids(port: Logical) -> list[Any]:
    return mapped({"iface-id": port.name, "attached-mac": port.mac})


def _identities(column: list[Any]) -> list[str]:
    """Of the rows that it refers to, be they one or several."""
    return [each[1] for each in (column[1] if column[0] == "set" else [column])]


def _named(*names: str) -> list[Any]:
    return ["set", [["named-uuid", _identity(name)] for name in names]]


def _port(name: str, /, **interface: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    identity = _identity(name)
    return (
        _insert("Interface", f"i{identity}", name=name, **interface),
        _insert("Port", identity, name=name, interfaces=["named-uuid", f"i{identity}"]),
    )


def _identity(name: str) -> str:
    """Of a new row, as OVSDB takes it."""
    return name.replace("-", "_")


def _mutate(table: str, where: list[Any], column: str, *added: str) -> dict[str, Any]:
    return {"op": "mutate", "table": table, "where": where, "mutations": [[column, "insert", _named(*added)]]}
