"""Virtio NICs: what each of them is put on at the destination, a bridge or an interface by a macvtap."""

from collections.abc import Iterator

from vferry.model.guest import Guest, Nic
from vferry.model.host import Attachment, AttachmentKind, Inventory
from vferry.plan import definition, standby
from vferry.plan.facts import Facts, Finding, error
from vferry.plan.plan import NetworkMode, VfMove


def attached(facts: Facts, moves: list[VfMove]) -> dict[str, Attachment]:
    """By MAC: NICs on macvtaps, those that are on another kind of bridge there, and standby NICs to be plugged."""
    found = {nic.mac: there for nic, there in _own(facts) if nic.interface is not None or there != _here(facts, nic)}
    for move in moves:
        vf = facts.destination.vf(move.destination.address)
        if move.mode is NetworkMode.MACVTAP and vf is not None and vf.interface is not None:
            found[move.mac] = Attachment(kind=AttachmentKind.MACVTAP, device=vf.interface)
        elif move.stands_by and not move.standby_stays and move.source_standby.on != move.destination_standby.on:
            found[move.mac] = move.destination_standby.on
    return found


def about(facts: Facts) -> Iterator[Finding]:
    """What is to say of NICs that are put on something else, or of which libvirt chooses what they are on."""
    destination = facts.destination
    pools = definition.pools(facts.definition.persistent)
    for nic in facts.guest.nics:
        if nic.interface is not None and nic.mac in pools:
            yield error(
                "macvtap-from-pool",
                f"{nic.mac} has its macvtap from libvirt's network {pools[nic.mac]}, which chooses by itself what it "
                f"is put on at {destination.name}",
                "Name the VF's interface in the definition (<interface type='direct'>) and start the guest anew",
            )
        network = facts.source.network_of_nic(nic)
        if nic.interface is not None and network is not None and network not in destination.networks:
            yield error(
                "network-missing",
                f"{destination.name} is not on the physical network {network}",
                f"Choose a host that is, or name it in {destination.name}'s agent configuration",
            )
    for nic, there in _own(facts):
        if nic.interface is not None:
            yield from _enslaved(facts, there.device)
        elif there != _here(facts, nic) or destination.bridge(there.device) is None:
            yield from _other_bridge(facts, nic, there)


def rewired(guest: Guest, source: Inventory, destination: Inventory) -> tuple[str, ...]:
    """The MACs of NICs that are put on something that may have another name; the others need one of the same name."""
    own = (nic for nic in guest.nics if nic.vf is not None and nic.interface is not None)
    plain = ((nic, source.network_of_nic(nic)) for nic in guest.nics if nic.vf is None and not nic.relayed)
    found = (nic for nic, network in plain if network and (nic.interface or network in destination.networks))
    return tuple(nic.mac for nic in (*own, *found))


def _own(facts: Facts) -> Iterator[tuple[Nic, Attachment]]:
    """The guest's own NICs that are on no VF, where the destination says what they are put on there."""
    destination = facts.destination
    for nic in facts.guest.nics:
        if nic.vf is not None or nic.relayed:
            continue
        network = facts.source.network_of_nic(nic)
        namesake = destination.bridge(nic.bridge)
        if network in destination.networks and network is not None:
            uplink = Attachment(kind=AttachmentKind.MACVTAP, device=destination.uplink(network))
            yield nic, uplink if nic.interface else destination.attachment(network)
        elif namesake is not None:
            yield nic, Attachment(kind=namesake.kind, device=namesake.name)


def _here(facts: Facts, nic: Nic) -> Attachment | None:
    """What a NIC on a bridge is on at the source."""
    bridge = facts.source.bridge(nic.bridge)
    return Attachment(kind=bridge.kind, device=bridge.name) if bridge else None


def _other_bridge(facts: Facts, nic: Nic, there: Attachment) -> Iterator[Finding]:
    network, destination = facts.source.network_of_nic(nic), facts.destination
    if not there.bridged:
        yield error(
            "no-bridge",
            f"{nic.mac} is on the bridge {nic.bridge}, and {destination.name} has none on {network}, but macvtaps",
            f"Name a bridge in {destination.name}'s agent configuration, or choose another host",
        )
    elif network is not None:
        yield from standby.missing_path(destination, network, nic.vlan)


def _enslaved(facts: Facts, interface: str) -> Iterator[Finding]:
    bridge = facts.destination.bridge_over(interface)
    if bridge is not None:
        yield error(
            "interface-in-bridge",
            f"{interface} of {facts.destination.name} is in the bridge {bridge.name}, and takes no macvtap",
            f"Choose another host, or put the guest's NIC on a VF, or on {bridge.name}",
        )
