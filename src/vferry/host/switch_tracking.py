"""What Open vSwitch tracks in user space of a guest's port, as ovs-vswitchd tells it (`dpctl/dump-conntrack`)."""

import re
from ipaddress import ip_address
from pathlib import Path

from msgspec import Struct

from vferry.host.api import MOST_PORT_CONNECTIONS, PortTracked
from vferry.host.openvswitch import OpenVSwitch, RefusedError
from vferry.host.ovn import read_zone
from vferry.host.relay_names import guest_name
from vferry.host.segments import TCP, UDP, backwards, ports
from vferry.model.connections import PortConnection, Way
from vferry.model.problem import Problem
from vferry.model.relay import RelayPort

DATAPATH = "netdev@ovs-netdev"
PROTOCOLS = {"tcp": TCP, "udp": UDP}
WITHOUT_PORTS = ("icmp", "icmpv6")
ALIVE = ("ESTABLISHED", "CLOSING", "FIN_WAIT_2")
"""The states of an end that was established: as such, and after it has said that it sends no more."""
_WAY = r"\(src=([0-9a-f.:]+),dst=([0-9a-f.:]+),sport=(\d+),dport=(\d+)\)"
ENTRY = re.compile(rf"(?P<protocol>[a-z0-9]+),orig={_WAY},reply={_WAY}(?P<rest>.*)")
NUMBERS = {name: re.compile(rf",{name}=(\w+)") for name in ("zone", "mark", "labels")}
STATES = re.compile(r"state_orig=(\w+),state_reply=(\w+)")


class Place(Struct, frozen=True):
    """Where a port's connections are: its bridge, its number there, and their zone."""

    bridge: str
    port: int
    zone: int


def find_place(root: Path, port: RelayPort) -> Place:
    """Where a guest's port of OVN's is. Problem ``connections-unreadable``."""
    if port.switch is None or port.switch.logical_port is None:
        raise unreadable(f"{port.mac} is no port of OVN's")
    logical = port.switch.logical_port
    try:
        zone = read_zone(root, logical)
    except (OSError, RefusedError, ValueError) as error:
        raise unreadable(str(error)) from error
    found = OpenVSwitch(root).find(guest_name(port.mac))
    if zone is None or found is None:
        raise unreadable(f"{logical} is not bound on this host")
    return Place(*found, zone)


def read_tracked(root: Path, place: Place) -> PortTracked:
    """The established connections of a port. Problem ``connections-unreadable``."""
    try:
        told = OpenVSwitch(root).ask_switch("dpctl/dump-conntrack", "-m", DATAPATH, f"zone={place.zone}")
        return read_dump(told, place.zone)
    except (OSError, RefusedError, ValueError) as error:
        raise unreadable(str(error)) from error


def read_dump(told: str, zone: int) -> PortTracked:
    """The established connections of a zone, at most as many as may be put elsewhere; others that live are counted."""
    found: list[PortConnection] = []
    left_out = 0
    for portable in (_portable(line, zone) for line in told.splitlines()):
        if portable is None or len(found) == MOST_PORT_CONNECTIONS:
            left_out += 1
        else:
            found.extend(portable)
    return PortTracked(connections=tuple(found), left_out=left_out)


def _portable(line: str, zone: int) -> tuple[PortConnection, ...] | None:
    """The connection of a line; none where it is not established yet or any more; None where it cannot be put."""
    protocol = line.partition(",")[0]
    if not line.strip() or protocol in WITHOUT_PORTS:
        return ()
    entry = ENTRY.fullmatch(line.strip())
    if entry is None or protocol not in PROTOCOLS:
        return None
    numbers = {name: int(match[1], 0) for name, pattern in NUMBERS.items() if (match := pattern.search(entry["rest"]))}
    if numbers.get("zone", 0) != zone or (protocol == "tcp" and not _lives(entry["rest"])):
        return ()
    way, served = _way(*entry.groups()[1:5]), backwards(_way(*entry.groups()[5:9]))
    if (served.source, ports(served)[0]) != (way.source, ports(way)[0]):
        return None
    known = PortConnection(
        protocol=TCP if protocol == "tcp" else UDP,
        way=way,
        mark=numbers.get("mark", 0),
        labels=f"{numbers.get('labels', 0):x}",
        served=None if served == way else served,
    )
    return (known,)


def _lives(rest: str) -> bool:
    states = STATES.search(rest)
    return states is not None and set(states.groups()) <= set(ALIVE) and "ESTABLISHED" in states.groups()


def _way(source: str, destination: str, source_port: str, destination_port: str) -> Way:
    ports = int(source_port), int(destination_port)
    return Way(source=str(ip_address(source)), destination=str(ip_address(destination)), ports=ports)


def unreadable(why: str) -> Problem:
    """Problem ``connections-unreadable``."""
    return Problem(
        "connections-unreadable",
        f"Open vSwitch does not tell its connections: {why}",
        f"Look with: ovs-appctl dpctl/dump-conntrack -m {DATAPATH}; ovn-appctl -t ovn-controller ct-zone-list",
    )
