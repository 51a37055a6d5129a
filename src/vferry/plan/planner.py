"""From facts and wishes to a plan: for each NIC its mode, its VF at the destination, and who chooses in the guest."""

from collections.abc import Iterator

from msgspec import Struct

from vferry.model.guest import Guest, Nic, VfRef
from vferry.model.host import Vf
from vferry.plan import definition, destination_vf, macvtap, standby, teaming, transfer
from vferry.plan.announced import announced
from vferry.plan.facts import Facts, Finding, Refusal, Wishes, error, info, vf_link, warning
from vferry.plan.plan import Forwarded, GuestSide, NetworkMode, Plan, VfMove

STANDBY_MODES = (NetworkMode.SWITCH, NetworkMode.FAILOVER)
"""Those in which a virtio NIC on a bridge stands in for the VF."""


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
    findings = [*macvtap.about(facts)]
    moves: list[VfMove] = []
    for nic, vf in vf_nics:
        try:
            move = _move(facts, wishes, nic, vf, {other.destination.address for other in moves})
        except Refusal as refusal:
            findings.append(refusal.finding)
            continue
        moves.append(move)
        findings += _about(facts, move)
    if len(moves) < len(vf_nics):
        return Draft(findings=tuple(findings))
    interfaces = macvtap.interfaces(facts, moves)
    passed = {m.source.address: m.destination.address for m in moves if m.mode is not NetworkMode.MACVTAP}
    xml, missing = definition.rewritten(facts.definition.persistent, passed, interfaces)
    findings += [_unnamed(what, facts.guest.name) for what in missing]
    return Draft(findings=tuple(findings), plan=_plan(facts, wishes, moves, interfaces, xml))


def _fits(mode: NetworkMode, nic: Nic) -> bool:
    """Whether a mode is for such a NIC; `failover` looks closer where it is planned."""
    if mode is NetworkMode.MACVTAP:
        return nic.interface is not None
    return mode is NetworkMode.VIRTIO or nic.passed_through


def _mode(guest: Guest, nic: Nic, asked: NetworkMode | None) -> NetworkMode:
    """What was asked for, where it fits; else what a NIC on a VF is made for."""
    if asked is not None and _fits(asked, nic):
        return asked
    if not nic.passed_through:
        return NetworkMode.MACVTAP
    return NetworkMode.FAILOVER if teaming.is_teamed(guest, nic) else NetworkMode.SWITCH


def _plan(facts: Facts, wishes: Wishes, moves: list[VfMove], interfaces: dict[str, str], xml: str) -> Plan:
    moved = {move.mac for move in moves}
    plain = tuple(nic.mac for nic in facts.guest.nics if nic.mac not in moved)
    return Plan(
        operation=wishes.operation,
        guest=facts.guest.name,
        uuid=facts.guest.uuid,
        source=facts.source.name,
        destination=facts.destination.name,
        reason=_reason(moves, interfaces),
        moves=tuple(moves),
        plain_macs=plain,
        forwarded=_forwarded(facts, plain),
        announced=announced(facts, moves),
        routes_ipv6=facts.guest_network is not None and facts.guest_network.routes_ipv6,
        persistent_xml=xml,
        transfer=transfer.fitted(wishes.transfer, facts.guest.memory),
        unplug_timeout_s=wishes.unplug_timeout_s,
        interfaces=interfaces,
    )


def _move(facts: Facts, wishes: Wishes, nic: Nic, ref: VfRef, taken: set[str]) -> VfMove:
    source, destination, guest = facts.source, facts.destination, facts.guest
    mode = _mode(guest, nic, wishes.mode)
    network = source.network_of(ref.pf)
    if network is None:
        raise Refusal(
            "network-unknown",
            f"{source.name} does not say which physical network {ref.pf} is on",
            f"Name it in {source.name}'s agent configuration: [networks.NAME] with pf and bridge",
        )
    if network not in destination.networks:
        raise Refusal(
            "network-missing",
            f"{destination.name} is not on the physical network {network}",
            f"Choose a host that is, or name it in {destination.name}'s agent configuration",
        )
    vf = destination_vf.choose(destination, network, mode, taken)
    own_standby = teaming.standby_of(guest, nic)
    side, mtu = _guest_side(facts, wishes, nic, mode)
    source_vf = source.vf(ref.address)
    if source_vf is None:
        raise Refusal("vf-unknown", f"{source.name} does not show VF {ref.address}", "Look at vferry host show")
    if mode is NetworkMode.SWITCH:
        _refuse_switch(guest, nic, source_vf, own_standby, side)
    if mode is NetworkMode.FAILOVER:
        teaming.refuse(facts, nic)
    if mode in STANDBY_MODES:
        _refuse_standby(facts, network, source_vf, own_standby)
    return VfMove(
        mac=nic.mac,
        mode=mode,
        reason=f"{mode.value} was asked for" if wishes.mode is mode else _SIDES[side],
        network=network,
        guest_side=side,
        source=ref,
        source_alias=nic.alias,
        source_settings=source_vf.settings,
        source_bridge=source.networks[network].bridge,
        destination=_reference(vf),
        destination_before=vf.settings,
        destination_bridge=destination.networks[network].bridge,
        standby_alias=own_standby.alias if own_standby else f"ua-vferry-standby-{nic.mac.replace(':', '')}",
        standby_stays=own_standby is not None,
        mtu=mtu,
        contested=own_standby is None and mode is NetworkMode.SWITCH and _contested(facts, side),
    )


def _refuse_switch(guest: Guest, nic: Nic, vf: Vf, own_standby: Nic | None, side: GuestSide) -> None:
    """What mode `switch` cannot do."""
    if teaming.is_teamed(guest, nic):
        raise Refusal(
            "teaming",
            f"{nic.mac} is a teaming pair, in which the guest's net_failover chooses the NIC",
            "Use --network failover",
        )
    if side is GuestSide.BOND and own_standby is None:
        raise Refusal(
            "bond-without-standby",
            f"The guest has VF {vf.address} in a bond, with no virtio NIC of the same MAC beside it",
            "Give it one in its definition, or use --network detach",
        )


def _refuse_standby(facts: Facts, network: str, vf: Vf, own_standby: Nic | None) -> None:
    """What no mode with a standby NIC can do; it can be migrated in mode `detach`."""
    source, destination = facts.source, facts.destination
    if own_standby is not None and own_standby.vlan != (vf.settings.vlan or 0):
        raise Refusal(
            "vlan-differs",
            f"VF {vf.address} is in VLAN {vf.settings.vlan}, its standby NIC in {own_standby.vlan}",
            "Give both the same <vlan>, or use --network detach",
        )
    bridges = [inventory.networks[network].bridge for inventory in (source, destination)]
    if bridges[0] != bridges[1]:
        raise Refusal(
            "bridge-differs",
            f"The bridge on {network} is {bridges[0]} on {source.name} and {bridges[1]} on {destination.name}",
            "Give both the same name, or use --network detach",
        )


def _forwarded(facts: Facts, macs: tuple[str, ...]) -> tuple[Forwarded, ...]:
    """The entries of NICs on a bridge in the filter of the PF behind it, on a network that both hosts have."""
    shared = facts.source.networks.keys() & facts.destination.networks.keys()
    found = []
    for network in sorted(shared):
        name = facts.source.networks[network].pf
        held = next((pf.forwarding for pf in facts.source.pfs if pf.name == name), ())
        to = facts.destination.networks[network].pf
        found += [Forwarded(mac=mac, source_pf=name, destination_pf=to) for mac in macs if mac in held]
    return tuple(found)


def _guest_side(facts: Facts, wishes: Wishes, nic: Nic, mode: NetworkMode) -> tuple[GuestSide, int]:
    """Who chooses in the guest, and the MTU there. Refuses what only the guest's own reaction could do."""
    if mode is NetworkMode.MACVTAP:
        return GuestSide.NOBODY, 1500
    link = vf_link(facts, nic.mac)
    if link is not None and mode is NetworkMode.FAILOVER:
        return GuestSide.FAILOVER, link.mtu
    if link is not None:
        return (GuestSide.BOND if link.master else GuestSide.ADDRESSES), link.mtu
    if not wishes.accept_interruption and mode is NetworkMode.SWITCH:
        why = facts.guest_silence or "its agent shows no NIC with this MAC"
        raise Refusal(
            "guest-not-reached",
            f"vferry cannot move {nic.mac} inside {facts.guest.name}: {why}",
            "Run qemu-guest-agent in the guest, or accept with --accept-interruption that it is interrupted until "
            "its own configuration brings the new NIC up",
        )
    return GuestSide.HOTPLUG, 1500


def _contested(facts: Facts, side: GuestSide) -> bool:
    inside = facts.guest_network
    if inside is None or side is not GuestSide.ADDRESSES:
        return False
    return bool(inside.strict_rp_filter) or inside.configured_by == "networkd"


def _about(facts: Facts, move: VfMove) -> Iterator[Finding]:
    if move.mode in STANDBY_MODES:
        for inventory in (facts.source, facts.destination):
            yield from standby.missing(inventory, move.network, move.vlan)
    if move.mode is NetworkMode.DETACH:
        yield info("dark", f"{move.mac} is without its VF from before the copy until after it")
    if move.guest_side is GuestSide.HOTPLUG:
        yield warning("hotplug-only", f"{move.mac} is left to the guest's own reaction to a NIC that comes and goes")
    inside = facts.guest_network
    if inside and inside.strict_rp_filter and move.guest_side is GuestSide.ADDRESSES:
        yield warning(
            "strict-rp-filter",
            f"The guest filters strictly by reverse path ({', '.join(inside.strict_rp_filter)}); "
            "it is loosened on the two NICs while the traffic moves",
        )
    if inside and move.guest_side is GuestSide.ADDRESSES:
        yield from _configured_by(inside.configured_by, move.mode)


def _configured_by(manager: str | None, mode: NetworkMode) -> Iterator[Finding]:
    if manager == "networkd" and mode is NetworkMode.SWITCH:
        yield info(
            "configured-by",
            "systemd-networkd, which configures the guest, is told to leave the standby NIC alone; the new VF has the "
            "addresses that it is given, and networkd takes it up at the next boot",
        )
    elif manager in ("networkd", "NetworkManager"):
        yield warning("configured-by", f"The guest's network is configured by {manager}, which may interfere")


_SIDES = {
    GuestSide.BOND: "its own bond chooses the NIC",
    GuestSide.ADDRESSES: "its agent moves addresses and routes",
    GuestSide.FAILOVER: "its net_failover driver chooses the NIC",
    GuestSide.HOTPLUG: "the guest reacts to hot-plug by itself",
    GuestSide.NOBODY: "it keeps its virtio NIC, whose macvtap is put on another VF",
}


def _reason(moves: list[VfMove], interfaces: dict[str, str]) -> str:
    """Why these modes: once what holds for all NICs, else each by itself."""
    reasons = dict.fromkeys(move.reason for move in moves)
    if not reasons:
        return "its macvtap is put on another PF" if interfaces else "the guest has no VF"
    if len(reasons) == 1:
        return next(iter(reasons))
    return "; ".join(f"{move.mac}: {move.mode.value}, {move.reason}" for move in moves)


def _fits_none(guest: Guest, mode: NetworkMode) -> Finding:
    if mode is NetworkMode.MACVTAP:
        return error("no-macvtap", f"{guest.name} has no NIC on a macvtap, which mode {mode.value} is for", "Use auto")
    if any(nic.vf is not None for nic in guest.nics):
        return error("no-vf", f"{guest.name} has no VF passed through, which mode {mode.value} is for", "Use auto")
    return error("no-vf", f"{guest.name} has no VF, which mode {mode.value} is for", "Use --network virtio, or auto")


def _refuse_virtio(vf_nics: list[tuple[Nic, VfRef]]) -> Finding:
    addresses = ", ".join(vf.address for _, vf in vf_nics)
    instead = "switch" if any(nic.passed_through for nic, _ in vf_nics) else "macvtap"
    return error(
        "has-vf", f"A guest with a VF ({addresses}) does not migrate as virtio alone", f"Use --network {instead}"
    )


def _unnamed(what: str, guest: str) -> Finding:
    return warning(
        "vf-not-defined",
        f"The definition of {guest} does not name VF {what}: after a cold boot it comes up without",
        f"virsh edit {guest}",
    )


def _reference(vf: Vf) -> VfRef:
    return VfRef(pf=vf.pf, index=vf.index, address=vf.address)
