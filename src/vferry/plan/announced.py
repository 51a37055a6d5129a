"""Which NICs the destination announces to the network, by which interface, and with which addresses."""

from collections.abc import Iterator
from ipaddress import ip_address

from vferry.model.guest import Nic
from vferry.plan.facts import Facts
from vferry.plan.plan import Announced, NetworkMode, PortMove, VfMove

_OWN = (None, "bond", "team", "bridge")
"""Kinds of interfaces whose addresses are those of the NIC below: a VLAN's belong elsewhere."""


def announced(facts: Facts, moves: list[VfMove], ports: tuple[PortMove, ...] = ()) -> tuple[Announced, ...]:
    """All NICs that can be, those on a VF first, then those on a switched relay.

    In the dark, the guest has no NIC when it resumes, and may look for duplicates of its addresses on the
    next one: those are not announced.
    """
    of_vfs = [
        Announced(
            mac=move.mac,
            interface=move.destination_standby.uplink if move.stands_by else move.destination.pf,
            vlan=move.vlan,
            uplink=move.destination_standby.uplink if move.mode is NetworkMode.VFIO else None,
            addresses=() if move.dark else addresses_of(facts, move.mac),
        )
        for move in moves
    ]
    of_ports = [
        Announced(
            mac=port.mac,
            interface=port.uplink,
            vlan=port.vlan,
            addresses=addresses_of(facts, port.mac) if port.uplink else (),
        )
        for port in ports
    ]
    known = {move.mac for move in moves} | {port.mac for port in ports}
    others = (nic for nic in facts.guest.nics if nic.mac not in known)
    return (*of_vfs, *of_ports, *_served(ports), *(each for nic in others for each in _plain(facts, nic)))


def _served(ports: tuple[PortMove, ...]) -> Iterator[Announced]:
    """Guests that are behind a service, as if they had sent something: switches take them to be where it was."""
    for port in ports:
        place = port.destination.switch
        for mac in place.chain.behind if place and place.chain else ():
            yield Announced(mac=mac, interface=None, port=port.mac)


def _plain(facts: Facts, nic: Nic) -> Iterator[Announced]:
    """A NIC on no VF, by the uplink of its physical network, where that is known."""
    destination = facts.destination
    network = facts.source.network_of_nic(nic)
    if network not in destination.networks:
        network = destination.network_of_nic(nic)
    if network is not None:
        uplink = destination.uplink(network)
        yield Announced(mac=nic.mac, interface=uplink, vlan=nic.vlan, addresses=addresses_of(facts, nic.mac))


def addresses_of(facts: Facts, mac: str) -> tuple[str, ...]:
    """The global ones that the guest's agent tells of a NIC."""
    own = (link for link in facts.links if link.mac == mac and link.kind in _OWN)
    found = (each.address for link in own for each in link.addresses if each.scope == "global")
    return tuple(dict.fromkeys(address for address in found if _is_unicast(address)))


def _is_unicast(address: str) -> bool:
    """The guest's agent may say anything."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_multicast or parsed.is_unspecified or parsed.is_loopback)
