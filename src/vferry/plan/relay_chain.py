"""A service chain on a switched relay: a tenant's guests led through services by VLANs of the chain's own.

The guests are in the chain's first VLAN instead of their tenant's, and each service joins two VLANs, by a NIC in each:
the last one the chain's last with the tenant's. There is no other way between these.
"""

from collections.abc import Iterable, Iterator
from itertools import chain as joined

from msgspec import Struct
from msgspec.structs import replace

from vferry.host.api import JoinRelay
from vferry.model.host import Inventory
from vferry.model.relay import ChainPlace, Relay, RelayPort, RelayState, SwitchPlace
from vferry.plan.facts import Finding, Found, Refusal, info, warning
from vferry.plan.host_step import HostStep


class Service(Struct, frozen=True, kw_only=True):
    """A service's NICs, by their MACs: towards the guests that are led through it, and away from them."""

    inward: str
    outward: str


class ChainWishes(Struct, frozen=True, kw_only=True):
    """What the operator asks for: the NICs that are led through the services, which come in this order after them."""

    name: str
    served: tuple[str, ...]
    services: tuple[Service, ...]
    vlans: tuple[int, ...]
    """One before each service."""


class ChainStep(Struct, frozen=True, kw_only=True):
    """What is done to a NIC, in the name of whoever has claimed its guest."""

    guest: str
    step: HostStep


class ChainAssessment(Found, frozen=True, kw_only=True):
    """What was found, and the steps if nothing stands in the way; `ports` are those that they were planned for."""

    steps: tuple[ChainStep, ...] = ()
    ports: tuple[RelayPort, ...] = ()


def assess_chain(host: Inventory, wishes: ChainWishes) -> ChainAssessment:
    """The way to a chain: its guests first, which reach nobody until its services are there.

    The other way round, services would pass on what guests still send in their own VLAN, and the switch would take
    these to be behind the services.
    """
    try:
        relay = _switched(host)
        _refuse_unclear(wishes)
        served = tuple(_port(host, relay, mac) for mac in wishes.served)
        services = tuple(
            (_port(host, relay, each.inward), _port(host, relay, each.outward)) for each in wishes.services
        )
        ports = (*served, *joined.from_iterable(services))
        _refuse_apart(ports)
        _refuse_owners(served, services)
        tenant = _tenant(served)
        new = _places(wishes, tenant, served, services)
        _refuse_other(relay, wishes.name, dict(zip((port.mac for port in ports), new, strict=True)))
        _refuse_vlans(host, relay, wishes, tenant, ports)
    except Refusal as refusal:
        return ChainAssessment(findings=(refusal.finding,))
    steps = tuple(_step(port, place) for port, place in zip(ports, new, strict=True))
    return ChainAssessment(findings=tuple(_notes(relay, wishes, ports, services)), steps=steps, ports=ports)


def assess_no_chain(host: Inventory, name: str) -> ChainAssessment:
    """The way back, of what is on this host: its guests last, as when it is undone."""
    try:
        relay = _switched(host)
    except Refusal as refusal:
        return ChainAssessment(findings=(refusal.finding,))
    ports = sorted(_of_chain(relay, name), key=_serves, reverse=True)
    if not ports:
        return ChainAssessment(findings=(info("chain-none", f"Nothing on {host.name} is in a chain {name}"),))
    steps = tuple(_step(port, replace(_place(port), vlan=_own_vlan(_place(port)), chain=None)) for port in ports)
    notes: tuple[Finding, ...] = ()
    if len({_serves(port) for port in ports}) == 1:
        rest = "guests" if _serves(ports[0]) else "services"
        notes = (
            warning(
                "chain-elsewhere",
                f"The {rest} of {name} are not on {host.name}, and stay as they are",
                "Ask for the same on their hosts",
            ),
        )
    return ChainAssessment(findings=notes, steps=steps, ports=tuple(ports))


def _switched(host: Inventory) -> Relay:
    relay = host.relay
    if relay is None or relay.state is not RelayState.ENABLED or not relay.switched:
        raise Refusal(
            "chain-no-switch",
            f"{host.name} has no switched relay",
            f"Make one: vferry relay enable {host.name} --uplink PF --switched",
        )
    return relay


def _refuse_unclear(wishes: ChainWishes) -> None:
    macs = [*wishes.served, *(mac for each in wishes.services for mac in (each.inward, each.outward))]
    if twice := sorted({mac for mac in macs if macs.count(mac) > 1}):
        raise Refusal("chain-nic-twice", f"{', '.join(twice)} is named twice", "Name each NIC once")
    if len(wishes.vlans) != len(wishes.services) or len(set(wishes.vlans)) != len(wishes.vlans):
        raise Refusal(
            "chain-vlans-number",
            f"A chain of {len(wishes.services)} services has as many VLANs, each another one",
            "Name with --vlans one VLAN before each service, which nobody else is in",
        )


def _port(host: Inventory, relay: Relay, mac: str) -> RelayPort:
    port = relay.port(mac)
    if port is None or port.switch is None:
        raise Refusal(
            "chain-nic-unknown",
            f"{mac} is no port of the relay of {host.name}",
            "A chain is made where all of it are, and goes on when they migrate: bring them here first",
        )
    if port.switch.logical_port:
        raise Refusal("chain-nic-ovns", f"{mac} is OVN's port {port.switch.logical_port}", "Have OVN lead its frames")
    return port


def _refuse_apart(ports: Iterable[RelayPort]) -> None:
    names = sorted({_place(port).bridge for port in ports})
    if len(names) > 1:
        raise Refusal(
            "chain-apart-networks",
            f"They are on several physical networks: {', '.join(names)}",
            "Take NICs on one network",
        )


def _refuse_owners(served: tuple[RelayPort, ...], services: tuple[tuple[RelayPort, RelayPort], ...]) -> None:
    for inward, outward in services:
        if inward.guest != outward.guest:
            raise Refusal(
                "chain-two-guests",
                f"{inward.mac} is of {inward.guest}, and {outward.mac} of {outward.guest}",
                "A service is one guest, with a NIC towards each side",
            )
    guests = [*{port.guest for port in served}, *(inward.guest for inward, _ in services)]
    if twice := sorted({guest for guest in guests if guests.count(guest) > 1}):
        raise Refusal("chain-guest-twice", f"{', '.join(twice)} is in it twice", "Name each guest once")


def _tenant(served: Iterable[RelayPort]) -> int:
    """The VLAN of their own that all are in."""
    vlans = sorted({_own_vlan(_place(port)) for port in served})
    if len(vlans) != 1 or not vlans[0]:
        raise Refusal(
            "chain-no-tenant",
            f"The guests are not in one VLAN of their own: {', '.join(str(vlan or 'all') for vlan in vlans)}",
            "Make a chain for each VLAN; a NIC gets one in its definition (<vlan>), before it is put on the relay",
        )
    return vlans[0]


def _places(
    wishes: ChainWishes,
    tenant: int,
    served: tuple[RelayPort, ...],
    services: tuple[tuple[RelayPort, RelayPort], ...],
) -> tuple[SwitchPlace, ...]:
    """What becomes of the ports of the guests, then of the services."""
    after = (*wishes.vlans[1:], tenant)
    guests = (_led(wishes.name, port, wishes.vlans[0], serves=False, within=True) for port in served)
    pairs = (
        (
            _led(wishes.name, inward, vlan, serves=True, within=True),
            _led(wishes.name, outward, beyond, serves=True, within=beyond != tenant, behind=wishes.served),
        )
        for (inward, outward), vlan, beyond in zip(services, wishes.vlans, after, strict=True)
    )
    return (*guests, *joined.from_iterable(pairs))


def _led(
    name: str, port: RelayPort, vlan: int, *, serves: bool, within: bool, behind: tuple[str, ...] = ()
) -> SwitchPlace:
    place = _place(port)
    chain = ChainPlace(name=name, serves=serves, within=within, vlan=_own_vlan(place), behind=behind)
    return replace(place, vlan=vlan, chain=chain)


def _refuse_other(relay: Relay, name: str, new: dict[str, SwitchPlace]) -> None:
    """What is in a chain already is as it is to be, or half made so; whoever is of this one is named."""
    there = {port.mac for port in _of_chain(relay, name)}
    ports = (port for port in relay.ports if port.mac in new and _place(port).chain)
    if there - new.keys() or any(_place(port) != new[port.mac] for port in ports):
        raise Refusal(
            "chain-differs",
            f"There is another chain {name}, or these NICs are in one",
            "Look with vferry relay show HOST; take that one back first: vferry relay chain HOST NAME --none",
        )


def _refuse_vlans(
    host: Inventory, relay: Relay, wishes: ChainWishes, tenant: int, ports: tuple[RelayPort, ...]
) -> None:
    """The chain's VLANs are nobody's: no port's, no gateway's, and nobody's who is in another chain now."""
    macs, bridge = {port.mac for port in ports}, _place(ports[0]).bridge
    others = [_place(port) for port in relay.ports if port.mac not in macs and port.switch]
    used = {vlan for place in others if place.bridge == bridge for vlan in (place.vlan, _own_vlan(place))}
    used |= {gateway.vlan for gateway in relay.gateways if gateway.bridge == bridge} | {tenant}
    if taken := sorted(used.intersection(wishes.vlans)):
        raise Refusal(
            "chain-vlan-taken",
            f"VLAN {', '.join(map(str, taken))} of {bridge} on {host.name} is somebody's already",
            "Name with --vlans such as nobody is in, on the whole physical network",
        )


def _step(port: RelayPort, place: SwitchPlace) -> ChainStep:
    moved = replace(port, switch=place)
    return ChainStep(
        guest=port.guest,
        step=HostStep(
            name="chain",
            summary=f"{port.mac} of {port.guest} to {moved.joined_to}",
            apply=(JoinRelay(port=moved),),
            undo=(JoinRelay(port=port),),
        ),
    )


def _notes(
    relay: Relay,
    wishes: ChainWishes,
    ports: tuple[RelayPort, ...],
    services: tuple[tuple[RelayPort, RelayPort], ...],
) -> Iterator[Finding]:
    yield info(
        "chain-vlans",
        f"VLAN {', '.join(map(str, wishes.vlans))} leave by the bridge's uplinks, as all do: nobody on the physical "
        "network may be in them but this chain",
    )
    for inward, outward in services:
        own = {_own_vlan(_place(inward)), _own_vlan(_place(outward))}
        if len(own) == 1 or 0 in own:
            yield warning(
                "chain-loop",
                f"Without the chain, both NICs of {inward.guest} are in one VLAN, where what it bridges goes round",
                "Give them VLANs of their own in its definition, or let it bridge only while the chain is there",
            )
    macs, bridge = {port.mac for port in ports}, _place(ports[0]).bridge
    others = ((port.mac, port.switch) for port in relay.ports if port.mac not in macs)
    if unbound := [mac for mac, place in others if place and place.bridge == bridge and not place.vlan]:
        yield warning(
            "chain-open",
            f"{', '.join(unbound)} on {bridge} pass all VLANs, the chain's among them",
            "Give them VLANs, where they are not trusted",
        )


def _of_chain(relay: Relay, name: str) -> list[RelayPort]:
    return [port for port in relay.ports if port.switch and port.switch.chain and port.switch.chain.name == name]


def _serves(port: RelayPort) -> bool:
    chain = _place(port).chain
    return chain is not None and chain.serves


def _own_vlan(place: SwitchPlace) -> int:
    return place.chain.vlan if place.chain else place.vlan


def _place(port: RelayPort) -> SwitchPlace:
    assert port.switch is not None, "it is a port of a switch"  # noqa: S101 - looked at before
    return port.switch
