"""Where a VLAN of a switched relay goes beside its uplinks: what is to be done, or what stands in the way."""

from collections.abc import Iterator
from ipaddress import IPv4Address

from msgspec import Struct

from vferry.model.host import Inventory
from vferry.model.relay import Relay, RelayBridge, RelayGateway, RelayState, SwitchPlace
from vferry.plan import switch_place
from vferry.plan.facts import Finding, Refusal, info, warning
from vferry.plan.relay import RelayAssessment, RelayPlan
from vferry.plan.relay_steps import leading, not_leading

OVERHEAD, ETHERNET = 28, 14
"""Octets that IPv4, GRE, and its key or a label add to a guest's packet, and Ethernet where it goes along."""


class GatewayWishes(Struct, frozen=True, kw_only=True):
    """What the operator asks for. Without a bridge, the only one; without key and label, the VLAN's number as a key."""

    vlan: int
    remote: IPv4Address
    key: int | None = None
    label: int | None = None
    address: IPv4Address | None = None
    """Of the gateway among the guests, where it takes IPv4 and not Ethernet."""
    bridge: str | None = None


def assess_gateway(host: Inventory, wishes: GatewayWishes) -> RelayAssessment:
    """The way to a gateway. Where the VLAN has another one, it is put in its place."""
    try:
        relay, bridge = _switched(host, wishes.bridge)
        gateway = RelayGateway(
            bridge=bridge.name,
            vlan=wishes.vlan,
            remote=str(wishes.remote),
            key=wishes.vlan if wishes.key is None and wishes.label is None else wishes.key,
            label=wishes.label,
            address=str(wishes.address) if wishes.address else None,
        )
        _refuse_taken(relay, gateway)
        switch_place.refuse_mixed(host, SwitchPlace(bridge=bridge.name, vlan=wishes.vlan), "a gateway")
    except Refusal as refusal:
        return RelayAssessment(findings=(refusal.finding,))
    steps = leading(relay, gateway)
    return RelayAssessment(findings=tuple(_notes(relay, bridge, gateway)), plan=RelayPlan(relay=relay, steps=steps))


def assess_no_gateway(host: Inventory, vlan: int, name: str | None) -> RelayAssessment:
    """The way back, on a bridge that is named, or the only one."""
    try:
        relay, bridge = _switched(host, name)
    except Refusal as refusal:
        return RelayAssessment(findings=(refusal.finding,))
    gateway = relay.gateway(bridge.name, vlan)
    if gateway is None:
        note = info("gateway-none", f"VLAN {vlan} of {bridge.name} on {host.name} goes to no gateway")
        return RelayAssessment(findings=(note,))
    return RelayAssessment(plan=RelayPlan(relay=relay, steps=not_leading(relay, gateway)))


def _switched(host: Inventory, name: str | None) -> tuple[Relay, RelayBridge]:
    """Raises `Refusal`."""
    relay = host.relay
    if relay is None or relay.state is not RelayState.ENABLED or not relay.switched:
        raise Refusal(
            "gateway-no-switch",
            f"{host.name} has no switched relay",
            f"Make one: vferry relay enable {host.name} --uplink PF --switched",
        )
    known = ", ".join(bridge.name for bridge in relay.bridges)
    bridge = relay.bridge(name) if name else relay.bridges[0]
    if bridge is None:
        raise Refusal(
            "gateway-bridge-unknown", f"The relay of {host.name} has no bridge {name}", f"Name one of these: {known}"
        )
    if not name and len(relay.bridges) > 1:
        raise Refusal(
            "gateway-ambiguous",
            f"The relay of {host.name} has several bridges, one for each physical network",
            f"Name one with --bridge: {known}",
        )
    return relay, bridge


def _refuse_taken(relay: Relay, gateway: RelayGateway) -> None:
    for other in relay.gateways:
        own = (other.bridge, other.vlan) == (gateway.bridge, gateway.vlan)
        if not own and _told_by(other) == _told_by(gateway):
            raise Refusal(
                "gateway-key-taken",
                f"VLAN {other.vlan} of {other.bridge} goes to {gateway.remote} by the same key or label",
                "Choose another one with --key or --label, as at the gateway",
            )


def _told_by(gateway: RelayGateway) -> tuple[str, int | None, int | None]:
    return gateway.remote, gateway.key, gateway.label


def _notes(relay: Relay, bridge: RelayBridge, gateway: RelayGateway) -> Iterator[Finding]:
    most = bridge.mtu - OVERHEAD - (0 if gateway.address else ETHERNET)
    yield info(
        "gateway-mtu", f"What guests in VLAN {gateway.vlan} send to the gateway may have {most} octets, or is lost"
    )
    if gateway.address:
        yield info(
            "gateway-ipv4",
            f"Only IPv4 goes there, and comes back to guests that have asked for {gateway.address}, or sent something, "
            "since Open vSwitch was started",
        )
    yield info(
        "gateway-once",
        f"Guests on other hosts reach the gateway by VLAN {gateway.vlan} through this one: where two hosts lead it to "
        "the same gateway, and it is between them, too, frames go round",
    )
    if others := _unbound(relay, bridge):
        yield warning(
            "gateway-open",
            f"{', '.join(others)} on {bridge.name} pass all VLANs, and may send in the gateway's name",
            "Give them VLANs, where they are not trusted",
        )


def _unbound(relay: Relay, bridge: RelayBridge) -> list[str]:
    """The guests' NICs that pass all VLANs as they are tagged."""
    places = ((port.mac, port.switch) for port in relay.ports)
    return [mac for mac, place in places if place and place.bridge == bridge.name and not place.vlan]
