"""A relay as Open vSwitch has it: its ports, and what they have counted."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from vferry.host.openvswitch import OpenVSwitch
from vferry.host.ovsdb import Database, first
from vferry.host.relay_bridge import ours
from vferry.host.relay_load import read_connections, read_cpus
from vferry.host.relay_names import bridge_name, by_socket, guest_name
from vferry.model.problem import Problem
from vferry.model.relay import PortCounters, Relay, RelayPort, RelayView

COUNTED_EVERY_MS = 5000
"""How often Open vSwitch writes its counters into the database, where it is not told to do so more seldom."""


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
