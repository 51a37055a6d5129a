"""Tunnels from VLANs of a switched relay's bridge to gateways: ports of the bridge, which its database has."""

import contextlib
from pathlib import Path
from typing import Any

from vferry.host.api import Done, SetRelayGateway
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.ovsdb import Database, first
from vferry.host.relay_bridge import PortSpec, drop_ports, insert_port, ours, refused, unlike, unopened
from vferry.host.relay_far import check_far, drop_far, far_interfaces, far_port, far_wrong, insert_far, put_flows
from vferry.model.problem import Exit, Problem
from vferry.model.relay import RelayGateway


def set_gateway(root: Path, wanted: SetRelayGateway) -> Done:
    """Carries `SetRelayGateway` out."""
    gateway = wanted.gateway
    with Database(root) as database:
        by_flows = wanted.present and gateway.by_flows
        changed = False if by_flows else drop_far(database, gateway)
        bridge = database.named("Bridge", gateway.bridge)
        if bridge is None or not ours(bridge):
            if not wanted.present:
                return Done(changed=changed)
            raise Problem(
                "relay-missing",
                f"Open vSwitch has no bridge {gateway.bridge} of the relay's",
                "Make whole what is missing of it: vferry relay enable HOST --uplink PF --switched",
                exit=Exit.REFUSED,
            )
        if by_flows:
            check_far(database)
        changed |= _set(database, bridge, gateway, present=wanted.present)
    if by_flows:
        put_flows(root, gateway, anew=changed)
    if wanted.present and OpenVSwitch(root).way_to(gateway.remote) != gateway.bridge:
        raise _unrouted(gateway)
    return Done(changed=changed, detail=gateway.port)


def _set(database: Database, bridge: Any, gateway: RelayGateway, *, present: bool) -> bool:
    row = _row(bridge, gateway)
    if present and row is not None and not _unlike(database, row, gateway):
        return _open(database, row, gateway)
    if row is not None:
        database.change(lambda _: drop_ports(bridge, (gateway.port,)))
    if present:
        _make(database, bridge, gateway)
    return present or row is not None


def _open(database: Database, row: Any, gateway: RelayGateway) -> bool:
    """Whether it had to be tried again, as Open vSwitch does at any change. If that fails, it stays as it is."""
    if not _unopened(database, row, gateway):
        return False
    database.change(lambda _: None)
    if why := _unopened(database, row, gateway):
        raise refused(f"the tunnel {gateway.port}", why)
    return True


def _make(database: Database, bridge: Any, gateway: RelayGateway) -> None:
    try:
        database.change(lambda transaction: _insert(transaction, database, bridge, gateway))
        row = _row(bridge, gateway)
        if why := "it is gone again" if row is None else _wrong(database, row, gateway):
            raise refused(f"the tunnel {gateway.port}", why)
    except Problem:
        # What was not done in time may be done later, and nobody would know of it.
        with contextlib.suppress(Problem):
            database.change(lambda _: drop_ports(bridge, (gateway.port,)))
            drop_far(database, gateway)
        raise


def _insert(transaction: Any, database: Database, bridge: Any, gateway: RelayGateway) -> None:
    spec = PortSpec(name=gateway.port, interfaces={gateway.port: _tunnel(gateway)})
    made = insert_port(transaction, database, spec, None)
    made.tag, made.vlan_mode = [gateway.vlan], ["access"]
    bridge.verify("ports")
    bridge.ports = [*bridge.ports, made]
    if gateway.by_flows:
        insert_far(transaction, database, gateway)


def _tunnel(gateway: RelayGateway) -> tuple[str, dict[str, str]]:
    """What the port is: the tunnel itself, or the way to where flows see to it."""
    if gateway.by_flows:
        return "patch", {"peer": far_port(gateway)}
    return "gre", {"remote_ip": gateway.remote, "key": str(gateway.key or 0)}


def _row(bridge: Any, gateway: RelayGateway) -> Any | None:
    return next((port for port in bridge.ports if port.name == gateway.port), None)


def _wrong(database: Database, row: Any, gateway: RelayGateway) -> str:
    """What is not as it is to be, or not opened; empty if nothing is."""
    return _unlike(database, row, gateway) or _unopened(database, row, gateway)


def _unopened(database: Database, row: Any, gateway: RelayGateway) -> str:
    """Which of its interfaces Open vSwitch has not opened, and why; empty if it has all."""
    far = far_interfaces(database, gateway) if gateway.by_flows else []
    for interface in (*row.interfaces, *far):
        if why := unopened(interface):
            return f"{interface.name}: {why}"
    return ""


def _unlike(database: Database, row: Any, gateway: RelayGateway) -> str:
    """What is not as it is to be, opened or not; empty if nothing is."""
    interface = first(row.interfaces)
    if interface is None or (first(row.tag), first(row.vlan_mode)) != (gateway.vlan, "access"):
        return "it is not as it should be"
    return unlike(interface, *_tunnel(gateway)) or (far_wrong(database, gateway) if gateway.by_flows else "")


def _unrouted(gateway: RelayGateway) -> Problem:
    return Problem(
        "gateway-unrouted",
        f"This host has no way to {gateway.remote} by {gateway.bridge}",
        f"Give the bridge's own interface an address: ip address add ADDRESS/LENGTH dev {gateway.bridge}; "
        f"ip link set {gateway.bridge} up; and a route, where the gateway is not next to it",
        exit=Exit.REFUSED,
        remote=gateway.remote,
    )
