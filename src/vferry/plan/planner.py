"""From facts and wishes to a plan: for each NIC its mode and its VF at the destination."""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from vferry.model.guest import Guest, Nic, VfRef
from vferry.model.host import Attachment, Inventory, Vf
from vferry.plan import (
    attachments,
    carried,
    definition,
    destination_vf,
    hiding,
    inside,
    networks,
    relayed,
    standby,
    switched,
    teaming,
    transfer,
    vfio,
    vhost,
)
from vferry.plan.announced import announced
from vferry.plan.connections import tracked
from vferry.plan.facts import Facts, Finding, Refusal, Wishes, error, info, warning
from vferry.plan.plan import DeviceMove, Forwarded, GuestSide, NetworkMode, Plan, PortMove, Standby, VfMove

_VIRTIO = (NetworkMode.MACVTAP, NetworkMode.RELAY)
"""Modes of virtio NICs that are on a VF."""


class Draft(Struct, frozen=True, kw_only=True):
    """A plan with what was found on the way; no plan where an error left a hole in it."""

    findings: tuple[Finding, ...] = ()
    plan: Plan | None = None


def draft(facts: Facts, wishes: Wishes) -> Draft:
    """The plan that these facts and wishes ask for."""
    vf_nics = [(nic, nic.vf) for nic in facts.guest.nics if nic.vf is not None]
    if wishes.mode is NetworkMode.VIRTIO and vf_nics:
        return Draft(findings=(_refuse_virtio(vf_nics),))
    if wishes.mode is not None and not any(_fits(wishes.mode, nic) for nic in facts.guest.nics):
        return Draft(findings=(_fits_none(facts.guest, wishes.mode),))
    if wishes.mode is NetworkMode.VIRTIO and any(nic.relayed for nic in facts.guest.nics):
        return Draft(findings=(_refuse_off_relay(facts.guest),))
    devices, findings = vfio.plan_devices(facts)
    ports, refused = switched.moves(facts, wishes)
    findings += (*attachments.about(facts), *refused)
    moves: list[VfMove] = []
    for nic, vf in vf_nics:
        try:
            move = _move(facts, wishes, nic, vf, {other.destination.address for other in moves})
        except Refusal as refusal:
            findings.append(refusal.finding)
            continue
        moves.append(move)
        findings += _about(facts, move)
    mediated = sum(device.kind == "mdev" for device in facts.guest.devices)
    if refused or len(moves) < len(vf_nics) or len(devices) < mediated:
        return Draft(findings=tuple(findings))
    findings += (*vhost.about(facts, moves), *relayed.about(facts, moves), *switched.about(facts))
    attached = attachments.attached(facts, moves)
    passed = {m.source.address: m.destination.address for m in moves if m.mode not in _VIRTIO}
    xml, missing = definition.rewritten(facts.definition.persistent, passed, attached)
    findings += _undefined(facts, [move for move in moves if _name(move) in missing])
    return Draft(findings=tuple(findings), plan=_plan(facts, wishes, moves, ports, devices, attached, xml))


def _name(move: VfMove) -> str:
    """By what the definition names what moves: a VF's address, or the MAC of a NIC on a macvtap."""
    return move.mac if move.mode in _VIRTIO else move.source.address


def _fits(mode: NetworkMode, nic: Nic) -> bool:
    """Whether a mode is for such a NIC; `failover` and `vfio` look closer where it is planned."""
    if mode is NetworkMode.MACVTAP:
        return nic.interface is not None
    if mode is NetworkMode.RELAY:
        return nic.relayed
    return mode is NetworkMode.VIRTIO or nic.passed_through


def _mode(facts: Facts, wishes: Wishes, nic: Nic, ref: VfRef, taken: set[str]) -> NetworkMode:
    """What was asked for, where it fits; else what a NIC on a VF is made for."""
    if wishes.mode is not None and _fits(wishes.mode, nic):
        return wishes.mode
    if not nic.passed_through:
        return NetworkMode.RELAY if nic.relayed else NetworkMode.MACVTAP
    if teaming.is_teamed(facts, nic) and not teaming.is_alone(facts, nic):
        return NetworkMode.FAILOVER
    return NetworkMode.VFIO if vfio.migrates(facts, nic, ref, taken) else NetworkMode.SWITCH


def _plan(
    facts: Facts,
    wishes: Wishes,
    moves: list[VfMove],
    ports: tuple[PortMove, ...],
    devices: list[DeviceMove],
    attached: dict[str, Attachment],
    xml: str,
) -> Plan:
    moved = {move.mac for move in moves} | {port.mac for port in ports}
    plain = tuple(nic.mac for nic in facts.guest.nics if nic.mac not in moved)
    return Plan(
        operation=wishes.operation,
        guest=facts.guest.name,
        uuid=facts.guest.uuid,
        source=facts.source.name,
        destination=facts.destination.name,
        reason=_reason([*moves, *ports], attached),
        moves=tuple(moves),
        ports=ports,
        plain_macs=plain,
        devices=tuple(devices),
        device_state=facts.guest.device_state if devices or vfio.staying(moves) else None,
        attached=attached,
        standby_vhost=not vhost.lacking(facts.source, facts.destination),
        forwarded=tuple(_forwarded(facts, moves, plain)),
        announced=announced(facts, moves, ports),
        tracked=tracked(facts, moves),
        routes_ipv6=facts.guest_network is not None and facts.guest_network.routes_ipv6,
        persistent_xml=xml,
        transfer=transfer.fitted(wishes.transfer, facts.guest.memory),
        unplug_timeout_s=wishes.unplug_timeout_s,
    )


def _move(facts: Facts, wishes: Wishes, nic: Nic, ref: VfRef, taken: set[str]) -> VfMove:
    source, destination = facts.source, facts.destination
    mode = _mode(facts, wishes, nic, ref, taken)
    network = networks.of_both(source, destination, source.network_of(ref.pf), ref.pf)
    port = relayed.port(facts, nic, network, taken) if mode is NetworkMode.RELAY else None
    if mode is NetworkMode.VFIO:
        vfio.refuse(facts, nic, ref)
    vf = destination.vf(port.vf.address) if port and port.vf else _destination_vf(facts, mode, network, ref, taken)
    own_standby = teaming.standby_of(facts, nic)
    if mode in (NetworkMode.SWITCH, NetworkMode.DETACH):
        teaming.refuse_other_modes(facts, nic)
    side, mtu = inside.side_of(facts, wishes, nic, mode)
    source_vf, source_pf = source.vf(ref.address), source.pf(ref.pf)
    if source_vf is None or source_pf is None or vf is None:
        raise Refusal("vf-unknown", f"{source.name} does not show VF {ref.address}", "Look at vferry host show")
    if mode is NetworkMode.SWITCH and teaming.is_teamed(facts, nic):
        teaming.refuse_definition(facts, nic)
    if side is GuestSide.BOND:
        _refuse_bond(facts, nic, source_vf, plugs=mode is NetworkMode.SWITCH and own_standby is None)
    if mode is NetworkMode.FAILOVER:
        teaming.refuse(facts, nic)
    move = VfMove(
        mac=nic.mac,
        mode=mode,
        reason=f"{mode.value} was asked for" if wishes.mode is mode else _why(mode, side),
        network=network,
        guest_side=side,
        source=ref,
        source_alias=nic.alias,
        acpi_index=nic.acpi_index,
        source_settings=source_vf.settings,
        source_wiped=source_pf.wiped(source_vf),
        source_standby=_standby(source, network),
        destination=_reference(vf),
        destination_before=vf.settings,
        destination_standby=_standby(destination, network),
        standby_alias=own_standby.alias if own_standby else f"ua-vferry-standby-{nic.mac.replace(':', '')}",
        standby_stays=own_standby is not None,
        mtu=mtu,
        relay_port=port,
        hidden=mode is NetworkMode.MACVTAP and hiding.hides(destination, vf),
        contested=own_standby is None and inside.contested(facts, mode, side),
    )
    if move.stands_by:
        _refuse_standby(source_vf, own_standby)
    return move


def _destination_vf(facts: Facts, mode: NetworkMode, network: str, ref: VfRef, taken: set[str]) -> Vf:
    if mode is NetworkMode.VFIO:
        return vfio.free_vf(facts, ref, taken)
    return destination_vf.choose(facts.destination, network, mode, taken)


def _refuse_bond(facts: Facts, nic: Nic, vf: Vf, *, plugs: bool) -> None:
    """A bond is found by the virtio NIC in it, and a NIC that vferry plugs for the migration is in none."""
    stands_by = inside.has_virtio(facts, nic.mac)
    if plugs or not stands_by:
        raise Refusal(
            "bond-without-standby",
            f"The guest has VF {vf.address} in a bond, with no virtio NIC of the same MAC beside it",
            f"Give it one in its definition{', or use --network detach' if stands_by else ''}",
        )


def _standby(inventory: Inventory, network: str) -> Standby:
    return Standby(on=inventory.attachment(network), uplink=inventory.uplink(network))


def _refuse_standby(vf: Vf, own_standby: Nic | None) -> None:
    """What cannot be done where a standby NIC carries the traffic meanwhile."""
    if own_standby is not None and own_standby.vlan != (vf.settings.vlan or 0):
        raise Refusal(
            "vlan-differs",
            f"VF {vf.address} is in VLAN {vf.settings.vlan}, its standby NIC in {own_standby.vlan}",
            "Give both the same <vlan>",
        )


def _forwarded(facts: Facts, moves: list[VfMove], plain: tuple[str, ...]) -> Iterator[Forwarded]:
    """The NICs that stand by, and those on a bridge whose uplink was told of them, on a network of both hosts."""
    for move in moves:
        if move.stands_by:
            here, there = move.source_standby.filtered, move.destination_standby.filtered
            yield Forwarded(mac=move.mac, source_uplink=here, destination_uplink=there)
    source, destination = facts.source, facts.destination
    on_macvtaps = {nic.mac for nic in facts.guest.nics if nic.interface is not None}
    for network in sorted(source.networks.keys() & destination.networks.keys()):
        behind = source.uplink(network)
        for mac in plain:
            if mac in source.forwarding(behind) and mac not in on_macvtaps:
                yield Forwarded(mac=mac, source_uplink=behind, destination_uplink=destination.uplink(network))


def _about(facts: Facts, move: VfMove) -> Iterator[Finding]:
    yield from carried.missing(facts, move)
    yield from hiding.about(facts, move)
    if move.stands_by:
        for inventory in (facts.source, facts.destination):
            yield from standby.missing(inventory, move.network, move.vlan, move.mtu)
    elif move.dark:
        yield info("dark", f"{move.mac} is without its VF from before the copy until after it")
    yield from inside.about(facts, move)


_UNTOUCHED = {
    NetworkMode.VFIO: "QEMU migrates the VF itself",
    NetworkMode.MACVTAP: "it keeps its virtio NIC, whose macvtap is put on another VF",
    NetworkMode.RELAY: "it keeps its virtio NIC, which the relay there joins to another VF",
}


def _why(mode: NetworkMode, side: GuestSide) -> str:
    return _UNTOUCHED.get(mode) or inside.REASONS[side]


def _reason(moves: Sequence[VfMove | PortMove], attached: dict[str, Attachment]) -> str:
    """Why these modes: once what holds for all NICs, else each by itself."""
    reasons = dict.fromkeys(move.reason for move in moves)
    if not reasons:
        on_macvtap = any(not on.bridged for on in attached.values())
        return "its macvtap is put on another PF" if on_macvtap else "the guest has no VF"
    if len(reasons) == 1:
        return next(iter(reasons))
    return "; ".join(f"{move.mac}: {move.mode.value}, {move.reason}" for move in moves)


def _fits_none(guest: Guest, mode: NetworkMode) -> Finding:
    if mode is NetworkMode.MACVTAP:
        return error("no-macvtap", f"{guest.name} has no NIC on a macvtap, which mode {mode.value} is for", "Use auto")
    if mode is NetworkMode.RELAY:
        return error("no-relay", f"{guest.name} has no NIC on a relay, which mode {mode.value} is for", "Use auto")
    if any(nic.vf is not None or nic.relayed for nic in guest.nics):
        return error("no-vf", f"{guest.name} has no VF passed through, which mode {mode.value} is for", "Use auto")
    return error("no-vf", f"{guest.name} has no VF, which mode {mode.value} is for", "Use --network virtio, or auto")


def _refuse_virtio(vf_nics: list[tuple[Nic, VfRef]]) -> Finding:
    addresses = ", ".join(vf.address for _, vf in vf_nics)
    instead = _for_a_vf(nic for nic, _ in vf_nics)
    return error(
        "has-vf", f"A guest with a VF ({addresses}) does not migrate as virtio alone", f"Use --network {instead}"
    )


def _refuse_off_relay(guest: Guest) -> Finding:
    macs = ", ".join(nic.mac for nic in guest.nics if nic.relayed)
    return error(
        "has-relay", f"A guest with a NIC on a relay ({macs}) does not migrate as virtio alone", "Use --network relay"
    )


def _for_a_vf(nics: Iterable[Nic]) -> str:
    of = {"switch" if nic.passed_through else "relay" if nic.relayed else "macvtap" for nic in nics}
    return next(iter(of)) if len(of) == 1 else "auto"


def _undefined(facts: Facts, moves: list[VfMove]) -> Iterator[Finding]:
    """What becomes of VFs that the persistent definition does not name."""
    guest, destination = facts.guest.name, facts.destination.name
    pools = definition.pools(facts.definition.persistent)
    for move in moves:
        if pool := pools.get(move.mac):
            yield info(
                "vf-from-pool",
                f"When {guest} is next started, {move.mac} gets a VF from libvirt's network {pool} of {destination}",
            )
        else:
            yield warning(
                "vf-not-defined",
                f"The definition of {guest} does not name VF {move.source.address}: "
                "after a cold boot it comes up without",
                f"virsh edit {guest}",
            )


def _reference(vf: Vf) -> VfRef:
    return VfRef(pf=vf.pf, index=vf.index, address=vf.address)
