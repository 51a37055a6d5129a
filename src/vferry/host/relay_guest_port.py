"""A guest's NIC in Open vSwitch: on a direct relay a bridge of its own, on a switched one a port among others."""

import contextlib
from pathlib import Path
from typing import Any

from vferry.host.api import Done
from vferry.host.ovsdb import Database, first
from vferry.host.relay_bridge import PortSpec, drop_ports, insert_port, ours, refused, unlike, unopened
from vferry.host.relay_names import by_socket, guest_name
from vferry.host.relay_switch import set_joined
from vferry.model.problem import Exit, Problem
from vferry.model.relay import RelayPort, SwitchPlace

KBIT = 1000
"""Kilobits of a megabit, in which Open vSwitch counts."""
BURST_SHARE = 0.8
"""What may pass at once, of what may in a second: by its manual, TCP comes near the whole rate so."""


def set_port(root: Path, port: RelayPort, *, present: bool) -> Done:
    """Makes what joins a guest's NIC to its VF or to its bridge, or removes it.

    Problems: as of `SetRelayBridge`; ``relay-missing`` where there is no such bridge of the relay's.
    """
    if port.vf is not None:
        return set_joined(root, port, port.vf, present=present)
    if port.switch is None:
        return Done(changed=False)
    with Database(root) as database:
        return _set(database, port, port.switch, present=present)


def _set(database: Database, port: RelayPort, place: SwitchPlace, *, present: bool) -> Done:
    bridge, name = database.named("Bridge", place.bridge), guest_name(port.mac)
    if bridge is None or not _takes(bridge, place):
        if not present:
            return Done(changed=False)
        raise _without_bridge(place)
    row = _row(bridge, name)
    if present and row is not None and not _wrong(row, port, place):
        return Done(changed=False)
    if present and row is not None and not _other(row, port, place):
        return _change(database, row, port, place)
    if row is not None:
        database.change(lambda _: drop_ports(bridge, (name,)))
    if present:
        _make(database, bridge, port, place)
    return Done(changed=present or row is not None, detail=name)


def _change(database: Database, row: Any, port: RelayPort, place: SwitchPlace) -> Done:
    """Gives it another VLAN or rate while its guest uses it; what the bridge has learnt there is gone.

    If Open vSwitch has not opened it, it tries that again. If it still cannot, the port stays, for when it can.
    """
    database.change(lambda _: _configure(row, place))
    if why := _wrong(row, port, place):
        raise refused(f"the port {row.name}", why)
    return Done(detail=row.name)


def _takes(bridge: Any, place: SwitchPlace) -> bool:
    """OVN's bridge is not the relay's, and may be of the kernel, where no port on vhost-user works."""
    return bool(bridge.datapath_type == "netdev") if place.logical_port else ours(bridge)


def _without_bridge(place: SwitchPlace) -> Problem:
    if place.logical_port:
        return Problem(
            "relay-missing",
            f"Open vSwitch has no bridge {place.bridge} in user space, for ports that OVN binds",
            "Let ovn-controller make it so: ovs-vsctl set Open_vSwitch . external_ids:ovn-bridge-datapath-type=netdev",
            exit=Exit.REFUSED,
        )
    return Problem(
        "relay-missing",
        f"Open vSwitch has no bridge {place.bridge} of the relay's",
        "Make whole what is missing of it: vferry relay enable HOST --uplink PF --switched",
        exit=Exit.REFUSED,
    )


def _make(database: Database, bridge: Any, port: RelayPort, place: SwitchPlace) -> None:
    name = guest_name(port.mac)
    try:
        database.change(lambda transaction: _insert(transaction, database, bridge, port, place))
        row = _row(bridge, name)
        if why := "it is gone again" if row is None else _wrong(row, port, place):
            raise refused(f"the port {name}", why)
    except Problem:
        # What was not done in time may be done later, and nobody would know of it.
        with contextlib.suppress(Problem):
            database.change(lambda _: drop_ports(bridge, (name,)))
        raise


def _insert(transaction: Any, database: Database, bridge: Any, port: RelayPort, place: SwitchPlace) -> None:
    name = guest_name(port.mac)
    made = insert_port(transaction, database, PortSpec(name=name, interfaces={name: by_socket(port)}), port.mtu)
    _configure(made, place)
    for interface in made.interfaces:
        if place.logical_port:
            interface.external_ids = {"iface-id": place.logical_port, "attached-mac": port.mac}
    bridge.verify("ports")
    bridge.ports = [*bridge.ports, made]


def _configure(row: Any, place: SwitchPlace) -> None:
    row.tag, row.vlan_mode = ([place.vlan], ["access"]) if place.vlan else ([], [])
    for interface in row.interfaces:
        interface.ingress_policing_rate, interface.ingress_policing_burst = policing(place)


def policing(place: SwitchPlace) -> tuple[int, int]:
    """Rate in kbit/s and burst in kbit of what the guest sends; zeros for no limit."""
    rate = place.max_tx_rate * KBIT
    return rate, int(rate * BURST_SHARE)


def _row(bridge: Any, name: str) -> Any | None:
    return next((port for port in bridge.ports if port.name == name), None)


def _wrong(row: Any, port: RelayPort, place: SwitchPlace) -> str:
    """What is not as it is to be; empty if nothing is."""
    if why := _other(row, port, place):
        return why
    (interface,) = row.interfaces
    if (first(row.tag) or 0) != place.vlan:
        return "it is in another VLAN"
    if (interface.ingress_policing_rate, interface.ingress_policing_burst) != policing(place):
        return "it lets pass another rate"
    return unopened(interface)


def _other(row: Any, port: RelayPort, place: SwitchPlace) -> str:
    """Why it is no port for this guest's NIC; empty if it is one, opened or not, whatever it does to frames."""
    interface = first(row.interfaces)
    if interface is None or len(row.interfaces) > 1:
        return "it is not as it should be"
    if interface.external_ids.get("iface-id") != place.logical_port:
        return "it is another one of OVN's"
    return unlike(interface, *by_socket(port))
