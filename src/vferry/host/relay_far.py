"""The far side of a gateway that takes flows: a bridge that puts a VLAN's frames into MPLS, or into IP alone.

The VLAN's port on the relay's bridge is a patch to this one, which passes nothing but what its flows say (`secure`).
Open vSwitch forgets them when it is started anew, and so they are put again (`gateway_flows` has them).
"""

import logging
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from vferry.host.gateway_flows import PRIORITY, flows
from vferry.host.openflow import way_in
from vferry.host.openvswitch import OpenVSwitch, RefusedError
from vferry.host.ovsdb import Database, first
from vferry.host.pipeline import EVERY_TABLE, Pipeline
from vferry.host.relay_bridge import OURS, PortSpec, drop_bridge, drop_ports, insert_port, ours, refused, unlike
from vferry.model.problem import Exit, Problem
from vferry.model.relay import Relay, RelayGateway, RelayState

log = logging.getLogger("vferry.agent")

BRIDGE = "vferry-gre"
TUNNEL = "vferry-tunnel"
"""By which port a patch's frames go (`external_ids`)."""


def far_port(gateway: RelayGateway) -> str:
    """The patch at this bridge."""
    return f"{gateway.bridge[:9]}-m{gateway.vlan}"


def check_far(database: Database) -> None:
    """Problem ``bridge-anothers``, where somebody else has a bridge of this name."""
    bridge = database.named("Bridge", BRIDGE)
    if bridge is not None and not ours(bridge):
        raise Problem(
            "bridge-anothers",
            f"The bridge {BRIDGE} is not the relay's",
            f"Rename it, or remove it: ovs-vsctl del-br {BRIDGE}",
            exit=Exit.REFUSED,
        )


def far_wrong(database: Database, gateway: RelayGateway) -> str:
    """What is not as it is to be of the bridge, of the patch to it, and of its tunnel; empty if nothing is.

    Whether Open vSwitch has opened them, `far_interfaces` say.
    """
    bridge = database.named("Bridge", BRIDGE)
    return "its bridge is not there" if bridge is None else _wrong(bridge, gateway)


def far_interfaces(database: Database, gateway: RelayGateway) -> list[Any]:
    """The patch to it and its tunnel, as far as they are there."""
    bridge = database.named("Bridge", BRIDGE)
    names = _ports(gateway)
    return [each for port in (bridge.ports if bridge else ()) if port.name in names for each in port.interfaces]


def drop_far(database: Database, gateway: RelayGateway) -> bool:
    """Takes the patch away, and what nobody else needs of the rest."""
    bridge = database.named("Bridge", BRIDGE)
    if bridge is None or not ours(bridge) or far_port(gateway) not in {port.name for port in bridge.ports}:
        return False
    needed = _needed(bridge, but=far_port(gateway))
    if not needed:
        database.change(lambda _: drop_bridge(database, BRIDGE))
    else:
        gone = {port.name for port in bridge.ports} - needed - {BRIDGE}
        database.change(lambda _: drop_ports(bridge, gone))
    return True


def put_flows(root: Path, gateway: RelayGateway, *, anew: bool = False) -> None:
    """Has the bridge know what to do with a VLAN's frames, and no longer what it was before.

    What it has learnt stays, unless its ports are made anew. Problem ``port-refused``.
    """
    switch = OpenVSwitch(root)
    inner, outer = switch.find(far_port(gateway)), switch.find(tunnel_port(gateway))
    try:
        if inner is None or outer is None:
            raise RefusedError("its ports are not there")
        with Pipeline(way_in(root, BRIDGE), 0) as bridge:
            bridge.drop_flows_of(inner[1], EVERY_TABLE if anew else 0)
            for match, actions in flows(gateway, inner[1], outer[1]):
                bridge.add_flow(match, actions, cookie=0, priority=PRIORITY, ends_after_s=0)
            bridge.barrier()
    except (OSError, ValueError, RefusedError) as error:
        raise refused(f"the flows of VLAN {gateway.vlan}", str(error)) from error


class Flows:
    """Follows Open vSwitch's process, and puts the flows again that the one before has had."""

    def __init__(self, root: Path, relay: Callable[[], Relay | None]) -> None:
        self._root = root
        self._relay = relay
        self._known: str | None = None
        self._told: str | None = None

    def follow(self) -> None:
        """Does it where it is another one than the last time, or could not be done then; fails at nothing."""
        process = OpenVSwitch(self._root).process()
        if process is None or process == self._known:
            return
        try:
            relay = self._relay()
            led = relay.gateways if relay and relay.state is RelayState.ENABLED else ()
            for gateway in (each for each in led if each.by_flows):
                put_flows(self._root, gateway)
                log.info("%s: its flows are there again", gateway.described)
        except Problem as problem:
            if self._told != process:
                log.warning("a gateway's flows are not there yet: %s", problem)
            self._told = process
        else:
            self._known = process


def tunnel_port(gateway: RelayGateway) -> str:
    """The port that is the tunnel: labels share one to a gateway, and each key has its own."""
    if gateway.label is not None:
        return f"vfm{IPv4Address(gateway.remote).packed.hex()}"
    return f"{gateway.bridge[:9]}-r{gateway.vlan}"


def _ports(gateway: RelayGateway) -> dict[str, tuple[str, dict[str, str]]]:
    tunnel = {"remote_ip": gateway.remote, "packet_type": "legacy_l3"}
    if gateway.key is not None:
        tunnel["key"] = str(gateway.key)
    return {
        tunnel_port(gateway): ("gre", tunnel),
        far_port(gateway): ("patch", {"peer": gateway.port}),
    }


def insert_far(transaction: Any, database: Database, gateway: RelayGateway) -> None:
    """Makes what is missing of it, with the other end of the patch: one alone is an error to Open vSwitch."""
    bridge = database.named("Bridge", BRIDGE)
    if bridge is None:
        bridge = transaction.insert(database.table("Bridge"))
        bridge.name, bridge.datapath_type, bridge.fail_mode = BRIDGE, "netdev", ["secure"]
        bridge.external_ids = dict(OURS)
        own = PortSpec(name=BRIDGE, interfaces={BRIDGE: ("internal", {})})
        bridge.ports = [insert_port(transaction, database, own, None)]
        database.switch.verify("bridges")
        database.switch.bridges = [*database.switch.bridges, bridge]
    else:
        bridge.verify("ports")
        bridge.fail_mode = ["secure"]
    wanted = _ports(gateway)
    needed = {BRIDGE, *_needed(bridge, but=far_port(gateway))} - wanted.keys()
    right = {port.name for port in bridge.ports if port.name in wanted and not _unlike(port, gateway)}
    kept = [port for port in bridge.ports if port.name in needed | right]
    missing = wanted.keys() - {port.name for port in kept}
    specs = [PortSpec(name=name, interfaces={name: wanted[name]}) for name in wanted if name in missing]
    made = [insert_port(transaction, database, spec, None) for spec in specs]
    for port in made:
        for interface in port.interfaces:
            interface.external_ids = {TUNNEL: tunnel_port(gateway)}
    bridge.ports = [*kept, *made]


def _wrong(bridge: Any, gateway: RelayGateway) -> str:
    """What is not as it is to be; empty if nothing is."""
    ports = {port.name: port for port in bridge.ports}
    if bridge.datapath_type != "netdev" or first(bridge.fail_mode) != "secure":
        return "its bridge is not in user space, or passes what no flow says"
    for name in _ports(gateway):
        if name not in ports:
            return f"the port {name} is not there"
        if why := _unlike(ports[name], gateway):
            return f"{name}: {why}"
    return ""


def _unlike(port: Any, gateway: RelayGateway) -> str:
    (interface,) = port.interfaces
    if interface.external_ids.get(TUNNEL) != tunnel_port(gateway):
        return "it goes elsewhere"
    return unlike(interface, *_ports(gateway)[port.name])


def _needed(bridge: Any, but: str) -> set[str]:
    """The ports of the bridge that patches need, all but one of them."""
    interfaces = (interface for port in bridge.ports for interface in port.interfaces)
    patches = {each.name: each.external_ids.get(TUNNEL, "") for each in interfaces if each.type == "patch"}
    patches.pop(but, None)
    return {*patches, *patches.values()}
