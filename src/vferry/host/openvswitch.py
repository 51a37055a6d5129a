"""Open vSwitch: its bridges, and where they think a MAC is.

It is asked over its own sockets, without its tools: its database (OVSDB, RFC 7047) and the switch itself, as
ovs-appctl asks it, both speak JSON-RPC 1.0.
"""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from vferry.host.api import Done
from vferry.model.host import AttachmentKind, Bridge
from vferry.model.problem import Exit, Problem
from vferry.model.relay import SwitchAbilities

DIRECTORY = "run/openvswitch"
TIMEOUT_S = 5.0
LIMIT = 16 << 20
"""Bytes of an answer: a port takes some 500."""

VLANS = range(1, 4095)
COLUMNS = {
    "Bridge": ("name", "ports", "fail_mode", "controller"),
    "Port": ("_uuid", "interfaces", "tag", "trunks", "vlan_mode"),
    "Interface": ("_uuid", "name", "ofport"),
}
ABILITIES = ("other_config", "ovs_version", "dpdk_version", "dpdk_initialized")
VERSION = re.compile(r"\d+\.\d+\.\d+")
ROUTE = re.compile(r"^dev (\S+)$", re.MULTILINE)
"""What a line of ovs/route/lookup says by which interface it is."""
LEARNT = re.compile(r"^\s*(\S+)\s+(\d+)\s+([0-9a-f:]{17})\s+(\S+)\s*$", re.MULTILINE)
"""A line of fdb/show: port, VLAN, MAC, and the age or ``static``."""


class RefusedError(Exception):
    """Open vSwitch's own refusal, in its words."""


class OpenVSwitch:
    """This host's Open vSwitch, if it has one."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._directory = root / DIRECTORY

    def bridges(self) -> tuple[Bridge, ...]:
        """Its bridges with those ports that it really has; none where nothing answers."""
        return tuple(_bridge(bridge, ports, self._root) for bridge, ports in self._read())

    def abilities(self) -> SwitchAbilities | None:
        """What a relay needs to know of it; None where nothing answers, or nothing sensible."""
        select = {"op": "select", "table": "Open_vSwitch", "where": [], "columns": [*ABILITIES]}
        try:
            (answer,) = ask(self._directory / "db.sock", "transact", ["Open_vSwitch", select])
            (row,) = answer["rows"]
            said = {name: next(iter(_values(row[name])), None) for name in ABILITIES[1:]}
            own = self._version()
            return SwitchAbilities(
                version=said["ovs_version"] or own,
                dpdk_version=None if said["dpdk_version"] in (None, "none") else str(said["dpdk_version"]),
                dpdk_started=said["dpdk_initialized"] is True,
                answers=own is not None,
                settings={str(key): str(value) for key, value in row["other_config"][1]},
            )
        except (OSError, RefusedError, ValueError, LookupError, TypeError):
            return None

    def answers(self) -> bool:
        """Whether the switch itself does: its database outlives it, with all that it has written there."""
        return self._version() is not None

    def _version(self) -> str | None:
        """By the switch's own word: what starts it (ovs-ctl, usually) may have written none into the database."""
        try:
            found = VERSION.search(self.ask_switch("version"))
        except (OSError, ValueError, RefusedError):
            return None
        return found[0] if found else None

    def teach(self, port: str, mac: str, *, hold: bool = False) -> Done:
        """Has the bridge of a port hold a MAC there, or forget where it thought it was: it then floods its frames.

        Unchanged where no bridge has that port, or is older than 2.16. Problem ``bridge-refused``.
        """
        found = next(((bridge["name"], ports[port]) for bridge, ports in self._read() if port in ports), None)
        if found is None:
            return Done(changed=False)
        bridge, settings = found
        try:
            return self._hold(bridge, port, settings, mac) if hold else self._forget(bridge, port, mac)
        except RefusedError as refusal:
            if "not a valid command" in str(refusal):
                return Done(changed=False, detail="this Open vSwitch learns by frames alone")
            raise _refused(bridge, port, mac, str(refusal)) from refusal
        except (OSError, ValueError) as error:
            raise _refused(bridge, port, mac, str(error)) from error

    def find(self, port: str) -> tuple[str, int] | None:
        """The bridge that has a port, and the port's number in OpenFlow."""
        found = ((bridge["name"], int(ports[port].number)) for bridge, ports in self._read() if port in ports)
        return next(found, None)

    def way_to(self, address: str) -> str | None:
        """The bridge by whose own interface tunnels to an address leave; None where there is no way, or no word."""
        try:
            found = ROUTE.search(self.ask_switch("ovs/route/lookup", address))
        except (OSError, ValueError, RefusedError):
            return None
        return found[1] if found else None

    def _hold(self, bridge: str, port: str, settings: "_Port", mac: str) -> Done:
        vlan = settings.tag or 0
        if self._learnt(bridge, mac).get(vlan) == (settings.number, "static"):
            return Done(changed=False)
        self.ask_switch("fdb/add", bridge, port, str(vlan), mac)
        return Done(detail=f"{mac} is behind {port}")

    def _forget(self, bridge: str, port: str, mac: str) -> Done:
        known = self._learnt(bridge, mac)
        for vlan in map(str, known):
            # Only what is static can be deleted, and this is how it becomes so.
            self.ask_switch("fdb/add", bridge, port, vlan, mac)
            self.ask_switch("fdb/del", bridge, vlan, mac)
        return Done(changed=bool(known), detail=f"{mac} is where its frames come from" if known else "")

    def _learnt(self, bridge: str, mac: str) -> dict[int, tuple[str, str]]:
        """Where a bridge thinks that a MAC is: by VLAN, the port's number, and the entry's age."""
        rows = LEARNT.findall(self.ask_switch("fdb/show", bridge))
        return {int(vlan): (port, age) for port, vlan, learnt, age in rows if learnt == mac.lower()}

    def _read(self) -> Iterator[tuple[Mapping[str, Any], dict[str, "_Port"]]]:
        """Rows of bridges, each with its ports by their interfaces' names; a bond of Open vSwitch's own is left out."""
        selects = [{"op": "select", "table": t, "where": [], "columns": [*COLUMNS[t]]} for t in COLUMNS]
        try:
            answers = ask(self._directory / "db.sock", "transact", ["Open_vSwitch", *selects])
            bridges, ports, interfaces = (answer["rows"] for answer in answers)
            by_id = {row["_uuid"][1]: row for row in (*ports, *interfaces)}
            for bridge in bridges:
                rows = ((by_id[port], _values(by_id[port]["interfaces"])) for port in _values(bridge["ports"]))
                alone = ((row, by_id[each[0]]) for row, each in rows if len(each) == 1)
                yield bridge, {at["name"]: _port(row, at) for row, at in alone if _number(at) > 0}
        except (OSError, RefusedError, ValueError, LookupError, TypeError):
            return  # no Open vSwitch, or none that works: then nothing is on it

    def process(self) -> str | None:
        """The number of its process: of another one, when it was started anew; None where it does not run."""
        try:
            return (self._directory / "ovs-vswitchd.pid").read_text().strip() or None
        except OSError:
            return None

    def ask_switch(self, command: str, *arguments: str) -> str:
        number = (self._directory / "ovs-vswitchd.pid").read_text().strip()
        return str(ask(self._directory / f"ovs-vswitchd.{number}.ctl", command, list(arguments)) or "")


class _Port(Struct, frozen=True, kw_only=True):
    """A port's number, the VLAN of what comes in untagged, and the VLANs that it passes, None being all."""

    number: str
    tag: int | None = None
    vlans: tuple[int, ...] | None = None


class _Reply(Struct, frozen=True):
    result: Any = None
    error: Any = None


def connect(path: Path) -> socket.socket:
    """Connects within `TIMEOUT_S`, by the folder's descriptor: an address has 107 bytes for a path."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        wire.settimeout(TIMEOUT_S)
        wire.connect(f"/proc/self/fd/{folder}/{path.name}")
    except BaseException:
        wire.close()
        raise
    finally:
        os.close(folder)
    return wire


def ask(path: Path, method: str, parameters: list[Any], clock: Callable[[], float] = time.monotonic) -> Any:
    """The result of one call. `OSError` where nobody answers in time, `ValueError` for nonsense, `RefusedError`."""
    received = bytearray()
    ends = clock() + TIMEOUT_S
    with connect(path) as wire:
        wire.sendall(msgspec.json.encode({"id": 0, "method": method, "params": parameters}))
        while (reply := _read_reply(received)) is None:
            wire.settimeout(max(0.001, ends - clock()))
            data = wire.recv(1 << 16)
            if not data or len(received) > LIMIT:
                raise ValueError(f"no answer to {method}")
            received += data
    if reply.error is not None:
        raise RefusedError(str(reply.error).strip())
    return reply.result


def _read_reply(received: bytearray) -> _Reply | None:
    """None as long as it is not all there: answers have no end mark but their own last brace."""
    if not received.rstrip().endswith(b"}"):
        return None
    try:
        return msgspec.json.decode(received, type=_Reply)
    except msgspec.DecodeError:
        return None


def _bridge(row: Mapping[str, Any], ports: Mapping[str, _Port], root: Path) -> Bridge:
    return Bridge(
        name=row["name"],
        kind=AttachmentKind.OPENVSWITCH,
        ports=tuple(sorted(ports)),
        # Its own interface may be down: frames pass all the same.
        up=(root / "sys/class/net" / row["name"]).exists(),
        vlan_filtering=True,
        vlans={name: port.vlans for name, port in ports.items() if port.vlans is not None},
        controlled=bool(_values(row["controller"])) or "secure" in _values(row["fail_mode"]),
    )


def _port(row: Mapping[str, Any], interface: Mapping[str, Any]) -> _Port:
    """By the rules of ovs-vswitchd.conf.db(5): with a tag and no mode it is an access port, without one a trunk."""
    tag = next(iter(_values(row["tag"])), None)
    mode = next(iter(_values(row["vlan_mode"])), "trunk" if tag is None else "access")
    trunks = tuple(sorted(_values(row["trunks"])))
    passed: tuple[int, ...] | None = trunks or None
    if mode.startswith("native"):
        # What is untagged outside is in the VLAN of the tag inside, and the other way round.
        passed = tuple(vlan for vlan in trunks or VLANS if vlan not in (0, tag))
    elif mode != "trunk":
        passed = ()
    return _Port(number=str(_number(interface)), tag=None if mode == "trunk" else tag, vlans=passed)


def _number(interface: Mapping[str, Any]) -> int:
    """OpenFlow's number of an interface; -1 where Open vSwitch could not open it."""
    return next(iter(_values(interface["ofport"])), -1)


def _values(value: Any) -> list[Any]:
    """The values of a column, which OVSDB writes as a set, or bare where there is one; of identities the text."""
    found = value[1] if isinstance(value, list) and value[0] == "set" else [value]
    return [each[1] if isinstance(each, list) else each for each in found]


def _refused(bridge: str, port: str, mac: str, why: str) -> Problem:
    return Problem(
        "bridge-refused",
        f"The bridge {bridge} does not take {mac} for {port}: {why}",
        f"Look with: ovs-appctl fdb/show {bridge}",
        exit=Exit.REFUSED,
        mac=mac,
    )
