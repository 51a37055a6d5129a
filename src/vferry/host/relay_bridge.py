"""Bridges and ports of a relay in Open vSwitch's database. Each is looked at, changed, and read back."""

import contextlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from vferry.host.api import Done
from vferry.host.ovsdb import Database, first
from vferry.model.problem import Exit, Problem
from vferry.model.switch import CPUS, LOG, cpus_of_mask

OURS = {"vferry": "relay"}
"""What marks a bridge as the relay's (`external_ids`)."""

EVERY_VLAN = tuple(range(4096))

NO_VLAN = 4095
"""Reserved by IEEE 802.1Q: no frame is in it."""


class PortSpec(Struct, frozen=True, kw_only=True):
    """A port as it is to be: one interface for each VF or socket, several being a bond."""

    name: str
    interfaces: dict[str, tuple[str, dict[str, str]]]
    """By name, the type and the options."""
    queues: int = 1
    """How many receive queues each is to have at most; more than CPUs forward are of no use."""


class BridgeSpec(Struct, frozen=True, kw_only=True):
    """A bridge of the userspace datapath as it is to be. `joins`: what comes in at one port goes out at the other."""

    name: str
    ports: tuple[PortSpec, ...]
    mtu: int
    joins: bool = False


def set_spec(root: Path, spec: BridgeSpec, *, present: bool) -> Done:
    """Makes a bridge, or removes it, and looks whether its ports work. Problems: as of `SetRelayBridge`.

    One that is new and does not work is removed. What was there as it should be stays, for when it can be opened.
    """
    with Database(root) as database:
        row = database.named("Bridge", spec.name)
        if row is not None and not ours(row):
            raise Problem(
                "bridge-anothers",
                f"The bridge {spec.name} is not the relay's",
                f"Rename it, or remove it: ovs-vsctl del-br {spec.name}",
                exit=Exit.REFUSED,
            )
        if not present:
            return _remove(database, spec)
        if row is not None and not _wrong(row, spec):
            return Done(changed=False)
        if row is not None and (_others(row, spec) or not _another(row, spec)):
            return _mend(database, row, spec)
        _remove(database, spec)
        return _make(database, spec)


def _make(database: Database, spec: BridgeSpec) -> Done:
    try:
        database.change(lambda transaction: _insert(transaction, database, spec))
        row = database.named("Bridge", spec.name)
        why = "it is gone again" if row is None else _wrong(row, spec)
    except Problem:
        # What was not done in time may be done later, and nobody would know of it.
        with contextlib.suppress(Problem):
            _remove(database, spec)
        raise
    if why:
        _remove(database, spec)
        raise refused(f"the bridge {spec.name}", why)
    return Done(detail=spec.name)


def _mend(database: Database, bridge: Any, spec: BridgeSpec) -> Done:
    """Makes its ports anew that are not as they should be; all others stay, and the new ones that do not work, too.

    What it could not open, Open vSwitch tries again whenever anything is changed.
    """
    anew = [port for port in spec.ports if _unlike(bridge, port)]
    database.change(lambda _: drop_ports(bridge, {port.name for port in anew}))
    database.change(lambda transaction: _add_ports(transaction, database, bridge, anew, spec.mtu))
    if why := _wrong(bridge, spec):
        raise refused(f"the bridge {spec.name}", why)
    return Done(detail=spec.name)


def drop_ports(bridge: Any, names: Collection[str]) -> None:
    """Takes ports off a bridge, and so out of the database."""
    bridge.verify("ports")
    bridge.ports = [port for port in bridge.ports if port.name not in names]


def _add_ports(transaction: Any, database: Database, bridge: Any, ports: Iterable[PortSpec], mtu: int) -> None:
    made = [insert_port(transaction, database, port, mtu) for port in ports]
    bridge.verify("ports")
    bridge.ports = [*bridge.ports, *made]


def _remove(database: Database, spec: BridgeSpec) -> Done:
    row = database.named("Bridge", spec.name)
    if row is None:
        return Done(changed=False)
    if others := _others(row, spec):
        raise Problem(
            "bridge-in-use",
            f"Other ports are on the bridge {spec.name}: {', '.join(others)}",
            "Move the guests that they are of, or take their NICs off the relay",
            exit=Exit.REFUSED,
        )
    database.change(lambda _: drop_bridge(database, spec.name))
    return Done(detail=f"{spec.name} is gone")


def _others(bridge: Any, spec: BridgeSpec) -> list[str]:
    return sorted({port.name for port in bridge.ports} - {spec.name, *(port.name for port in spec.ports)})


def drop_bridge(database: Database, name: str) -> None:
    """Takes a bridge out of the database. Its ports go with it: nothing else refers to them."""
    row = database.named("Bridge", name)
    if row is not None:
        database.switch.verify("bridges")
        database.switch.bridges = [bridge for bridge in database.switch.bridges if bridge.uuid != row.uuid]


def _insert(transaction: Any, database: Database, spec: BridgeSpec) -> None:
    bridge = transaction.insert(database.table("Bridge"))
    bridge.name = spec.name
    bridge.datapath_type = "netdev"
    bridge.external_ids = dict(OURS)
    local = PortSpec(name=spec.name, interfaces={spec.name: ("internal", {})})
    own = insert_port(transaction, database, local, None)
    if spec.joins:
        own.tag, own.vlan_mode = [NO_VLAN], ["access"]
        bridge.flood_vlans = list(EVERY_VLAN)
        bridge.other_config = {"forward-bpdu": "true"}
    bridge.ports = [own, *(insert_port(transaction, database, port, spec.mtu) for port in spec.ports)]
    database.switch.verify("bridges")
    database.switch.bridges = [*database.switch.bridges, bridge]


def insert_port(transaction: Any, database: Database, spec: PortSpec, mtu: int | None) -> Any:
    """A new row for a port, which its bridge is to name."""
    port = transaction.insert(database.table("Port"))
    port.name = spec.name
    queues = min(spec.queues, len(cpus_of_mask(database.switch.other_config.get(CPUS, ""))))
    more = {"n_rxq": str(queues)} if queues > 1 else {}
    interfaces = []
    for name, (kind, options) in spec.interfaces.items():
        interface = transaction.insert(database.table("Interface"))
        interface.name, interface.type, interface.options = name, kind, options | more
        if mtu is not None:
            interface.mtu_request = [mtu]
        interfaces.append(interface)
    port.interfaces = interfaces
    if len(interfaces) > 1:
        port.bond_mode = ["active-backup"]
        # Its guests are announced by this one's PF: switches outside must learn of them at the port that is used.
        port.other_config = {"bond-primary": interfaces[0].name}
    return port


def _wrong(row: Any, spec: BridgeSpec) -> str:
    """What is not as it is to be; empty if nothing is."""
    for wanted in spec.ports:
        if why := _unlike(row, wanted) or _unopened(row, wanted):
            return why
    return _another(row, spec)


def _another(row: Any, spec: BridgeSpec) -> str:
    """Why a bridge is not of the kind that it is to be, whatever its ports; empty if it is."""
    if row.datapath_type != "netdev" or (spec.joins and len(row.flood_vlans) != len(EVERY_VLAN)):
        return "it is not in user space, or learns"
    return ""


def _unlike(row: Any, wanted: PortSpec) -> str:
    """Why a bridge has not the port that is wanted, whether it works or not; empty if it has."""
    there = _interfaces(row, wanted.name)
    if there.keys() != wanted.interfaces.keys():
        return f"the port {wanted.name} is not there as it should be"
    for name, (kind, options) in wanted.interfaces.items():
        if why := unlike(there[name], kind, options):
            return f"{name}: {why}"
    return ""


def _unopened(row: Any, wanted: PortSpec) -> str:
    for name, interface in _interfaces(row, wanted.name).items():
        if why := unopened(interface):
            return f"{name}: {why}"
    return ""


def _interfaces(row: Any, name: str) -> dict[str, Any]:
    """Those of a bridge's port, by their names."""
    return {each.name: each for port in row.ports if port.name == name for each in port.interfaces}


def unlike(interface: Any, kind: str, options: Mapping[str, str]) -> str:
    """Why an interface is not the one that is wanted, whether it works or not; empty if it is."""
    if interface.type != kind or any(interface.options.get(key) != value for key, value in options.items()):
        return "it is another one"
    return ""


def unopened(interface: Any) -> str:
    """Why Open vSwitch has not opened an interface; empty if it has."""
    if interface.error:
        return str(first(interface.error))[:300]
    number = first(interface.ofport)
    return "" if isinstance(number, int) and number > 0 else "it could not be opened"


def ours(bridge: Any) -> bool:
    """Whether a bridge is the relay's."""
    return all(bridge.external_ids.get(key) == value for key, value in OURS.items())


def refused(what: str, why: str) -> Problem:
    """Problem ``port-refused``."""
    return Problem(
        "port-refused",
        f"Open vSwitch cannot make {what}: {why}",
        f"Look at what it logs: {LOG}",
        exit=Exit.REFUSED,
    )
