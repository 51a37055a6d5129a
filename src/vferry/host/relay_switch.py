"""The relay's part of Open vSwitch: settings, bridges, ports. Each is looked at, changed, and read back."""

import contextlib
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from vferry.host.api import Done, SetRelayBridge, SetSwitch
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.ovsdb import Database, first
from vferry.host.relay_load import read_connections, read_cpus
from vferry.model.problem import Exit, Problem
from vferry.model.relay import PortCounters, Relay, RelayPort, RelayVf, RelayView
from vferry.model.switch import LOG, RESTART

START_TIMEOUT_S = 60.0
"""DPDK clears all of its memory when it starts."""

COUNTED_EVERY_MS = 5000
"""How often Open vSwitch writes its counters into the database, where it is not told to do so more seldom."""

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


class BridgeSpec(Struct, frozen=True, kw_only=True):
    """A bridge of the userspace datapath as it is to be. `joins`: what comes in at one port goes out at the other."""

    name: str
    ports: tuple[PortSpec, ...]
    mtu: int
    joins: bool = False


def set_switch(root: Path, wanted: SetSwitch) -> Done:
    """Carries `SetSwitch` out."""
    with Database(root) as database:
        there = database.switch.other_config
        changes = {
            key: value
            for key, value in wanted.settings.items()
            if there.get(key) != value and (key not in wanted.instead_of or there.get(key) == wanted.instead_of[key])
        }
        if changes:
            database.change(lambda _: _configure(database.switch, changes), START_TIMEOUT_S)
            _check_settings(database, changes)
        if wanted.start and not database.wait(lambda: bool(database.switch.dpdk_initialized)):
            raise without_dpdk()
        return Done(changed=bool(changes), detail=", ".join(sorted(changes)))


def without_dpdk() -> Problem:
    """Problem ``dpdk-not-started``."""
    return Problem(
        "dpdk-not-started",
        "DPDK does not start in Open vSwitch",
        f"Look why: grep -i dpdk {LOG}. It tries once only: then {RESTART}",
        exit=Exit.REFUSED,
    )


def set_bridge(root: Path, wanted: SetRelayBridge) -> Done:
    """Carries `SetRelayBridge` out."""
    bridge = wanted.bridge
    uplinks = {up.name: ("dpdk", {"dpdk-devargs": up.address}) for up in bridge.uplinks}
    name = bridge.uplinks[0].name if len(uplinks) == 1 else f"{bridge.name}-up"
    ports = (PortSpec(name=name, interfaces=uplinks),)
    return set_spec(root, BridgeSpec(name=bridge.name, ports=ports, mtu=bridge.mtu), present=wanted.present)


def set_joined(root: Path, port: RelayPort, vf: RelayVf, *, present: bool) -> Done:
    """Joins a guest's NIC to its VF by a bridge of their own that does not learn, or takes that back."""
    up, guest = uplink_name(port), guest_name(port.mac)
    ports = (
        PortSpec(name=up, interfaces={up: ("dpdk", {"dpdk-devargs": vf.address})}),
        PortSpec(name=guest, interfaces={guest: by_socket(port)}),
    )
    spec = BridgeSpec(name=bridge_name(port), ports=ports, mtu=port.mtu, joins=True)
    return set_spec(root, spec, present=present)


def read_relay(root: Path, relay: Relay | None) -> RelayView:
    """The relay as Open vSwitch has it."""
    if relay is None:
        return RelayView()
    try:
        with Database(root) as database:
            view = RelayView(
                relay=relay,
                dpdk_started=bool(database.switch.dpdk_initialized),
                ports=_all_ports(database, relay),
                read_at_s=time.monotonic(),
                counted_every_s=_counted_every_s(database.switch),
            )
    except Problem as problem:
        return RelayView(relay=relay, silence=problem.message, read_at_s=time.monotonic())
    if not OpenVSwitch(root).answers():
        return _left_behind(view)
    return replace(view, cpus=read_cpus(root), connections=read_connections(root))


def _left_behind(view: RelayView) -> RelayView:
    """What a database still has of a switch that does not answer: its ports, and what they had counted."""
    return replace(
        view,
        dpdk_started=False,
        ports=tuple(replace(port, up=None) for port in view.ports),
        silence="ovs-vswitchd does not answer: its ports are shown as it last counted",
    )


def _counted_every_s(switch: Any) -> float:
    """By ovs-vswitchd.conf.db(5): milliseconds, and no fewer than these."""
    try:
        return max(COUNTED_EVERY_MS, int(switch.other_config.get("stats-update-interval", COUNTED_EVERY_MS))) / 1000
    except ValueError:
        return COUNTED_EVERY_MS / 1000


def _all_ports(database: Database, relay: Relay) -> tuple[PortCounters, ...]:
    """Those that are there, and the guests' that are not, as an error."""
    there = tuple(_there(database, relay))
    names = {port.name for port in there}
    return (*there, *(_missing(port) for port in relay.ports if guest_name(port.mac) not in names))


def _missing(port: RelayPort) -> PortCounters:
    return PortCounters(
        name=guest_name(port.mac),
        bridge=port.switch.bridge if port.switch is not None else bridge_name(port),
        type=by_socket(port)[0],
        guest=port.guest,
        mac=port.mac,
        up=False,
        error="missing",
    )


def _there(database: Database, relay: Relay) -> Iterator[PortCounters]:
    """All but the bridges' own; on a direct relay, a guest's are those of its bridge, and on OVN's only guests'."""
    guests = {bridge_name(port): port for port in relay.ports if port.vf is not None}
    guests |= {guest_name(port.mac): port for port in relay.ports}
    for bridge in sorted(database.rows("Bridge"), key=_name):
        for port in sorted(bridge.ports, key=_name):
            whose = guests.get(bridge.name) or guests.get(port.name)
            for interface in sorted(port.interfaces, key=_name):
                if interface.name != bridge.name and (whose or ours(bridge)):
                    yield _counters(interface, bridge.name, whose)


def _name(row: Any) -> str:
    return str(row.name)


def bridge_name(port: RelayPort) -> str:
    """The bridge of a direct relay: of 15 characters, which is all that there is for an interface's name."""
    return "vfr" + port.mac.replace(":", "")


def uplink_name(port: RelayPort) -> str:
    """The port of a direct relay that is its VF."""
    return "vfu" + port.mac.replace(":", "")


def guest_name(mac: str) -> str:
    """The port that is a guest's NIC."""
    return "vfg" + mac.replace(":", "")


def by_socket(port: RelayPort) -> tuple[str, dict[str, str]]:
    """What a guest's port is: it connects to the socket of its QEMU, again and again."""
    return "dpdkvhostuserclient", {"vhost-server-path": port.socket}


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
    interfaces = []
    for name, (kind, options) in spec.interfaces.items():
        interface = transaction.insert(database.table("Interface"))
        interface.name, interface.type, interface.options = name, kind, dict(options)
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


def _configure(switch: Any, changes: Mapping[str, str | None]) -> None:
    for key, value in changes.items():
        if value is None:
            switch.delkey("other_config", key)
        else:
            switch.setkey("other_config", key, value)


def _check_settings(database: Database, changes: Mapping[str, str | None]) -> None:
    there = database.switch.other_config
    for key, value in changes.items():
        if there.get(key) != value:
            raise Problem(
                "switch-refused",
                f"Open vSwitch has {key} {there.get(key)!r} after it was set to {value!r}",
                "Somebody else changes it: look with ovs-vsctl list Open_vSwitch",
                exit=Exit.REFUSED,
            )


def _counters(interface: Any, bridge: str, of: RelayPort | None) -> PortCounters:
    link = first(interface.link_state)
    return PortCounters(
        name=interface.name,
        bridge=bridge,
        type=interface.type,
        guest=of.guest if of else "",
        mac=of.mac if of else "",
        up=None if link is None else link == "up",
        error=str(first(interface.error) or ""),
        statistics={str(key): int(value) for key, value in sorted(interface.statistics.items())},
    )
