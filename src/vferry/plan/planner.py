"""From facts and wishes to a plan: for each NIC its mode, its VF at the destination, and who chooses in the guest."""

from collections.abc import Iterator

from msgspec import Struct

from vferry.model.guest import Guest, GuestLink, Nic, VfRef
from vferry.model.host import Inventory, Vf
from vferry.plan import carried, definition, standby, teaming, transfer, vfio
from vferry.plan.announced import announced
from vferry.plan.connections import tracked
from vferry.plan.facts import Facts, Finding, Refusal, Wishes, error, info, vf_link, warning
from vferry.plan.plan import DeviceMove, Forwarded, GuestSide, NetworkMode, Plan, VfMove


class Draft(Struct, frozen=True, kw_only=True):
    """A plan with what was found on the way; no plan where an error left a hole in it."""

    findings: tuple[Finding, ...] = ()
    plan: Plan | None = None


def draft(facts: Facts, wishes: Wishes) -> Draft:
    """The plan that these facts and wishes ask for."""
    vf_nics = [(nic, nic.vf) for nic in facts.guest.nics if nic.vf is not None]
    if wishes.mode is NetworkMode.VIRTIO and vf_nics:
        return Draft(findings=(_refuse_virtio([vf for _, vf in vf_nics]),))
    if wishes.mode not in (None, NetworkMode.VIRTIO) and not vf_nics:
        return Draft(findings=(_no_vf(facts.guest, wishes.mode),))
    devices, findings = vfio.plan_devices(facts)
    moves: list[VfMove] = []
    for nic, vf in vf_nics:
        try:
            move = _move(facts, wishes, nic, vf, {other.destination.address for other in moves})
        except Refusal as refusal:
            findings.append(refusal.finding)
            continue
        moves.append(move)
        findings += _about(facts, move)
    if len(moves) < len(vf_nics) or len(devices) < sum(device.kind == "mdev" for device in facts.guest.devices):
        return Draft(findings=tuple(findings))
    xml, missing = definition.with_vfs(
        facts.definition.persistent, {move.source.address: move.destination.address for move in moves}
    )
    findings += _undefined(facts, [move for move in moves if move.source.address in missing])
    return Draft(findings=tuple(findings), plan=_plan(facts, wishes, moves, devices, xml))


def _mode(facts: Facts, nic: Nic, ref: VfRef, taken: set[str]) -> NetworkMode:
    """What a NIC on a VF is made for."""
    if teaming.is_teamed(facts.guest, nic):
        return NetworkMode.FAILOVER
    return NetworkMode.VFIO if vfio.migrates(facts, nic, ref, taken) else NetworkMode.SWITCH


def _plan(facts: Facts, wishes: Wishes, moves: list[VfMove], devices: list[DeviceMove], xml: str) -> Plan:
    moved = {move.mac for move in moves}
    plain = tuple(nic.mac for nic in facts.guest.nics if nic.mac not in moved)
    return Plan(
        operation=wishes.operation,
        guest=facts.guest.name,
        uuid=facts.guest.uuid,
        source=facts.source.name,
        destination=facts.destination.name,
        reason=_reason(moves),
        moves=tuple(moves),
        plain_macs=plain,
        devices=tuple(devices),
        forwarded=_forwarded(facts, plain),
        announced=announced(facts, moves),
        routes_ipv6=facts.guest_network is not None and facts.guest_network.routes_ipv6,
        tracked=tracked(facts, moves),
        persistent_xml=xml,
        transfer=transfer.fitted(wishes.transfer, facts.guest.memory),
        unplug_timeout_s=wishes.unplug_timeout_s,
    )


def _move(facts: Facts, wishes: Wishes, nic: Nic, ref: VfRef, taken: set[str]) -> VfMove:
    source, destination, guest = facts.source, facts.destination, facts.guest
    mode = wishes.mode or _mode(facts, nic, ref, taken)
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
    if mode is NetworkMode.VFIO:
        vfio.refuse(facts, nic, ref)
    vf = vfio.free_vf(facts, ref, taken) if mode is NetworkMode.VFIO else _free_vf(destination, network, taken)
    own_standby = teaming.standby_of(guest, nic)
    side, mtu = _guest_side(facts, wishes, nic, mode)
    source_vf = source.vf(ref.address)
    if source_vf is None:
        raise Refusal("vf-unknown", f"{source.name} does not show VF {ref.address}", "Look at vferry host show")
    if mode is NetworkMode.SWITCH:
        _refuse_switch(guest, nic, source_vf, own_standby, side)
    if mode is NetworkMode.FAILOVER:
        teaming.refuse(facts, nic)
    move = VfMove(
        mac=nic.mac,
        mode=mode,
        reason=f"{mode.value} was asked for" if wishes.mode else _SIDES[side],
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
        contested=own_standby is None and _contested(facts, mode, side),
    )
    if move.stands_by:
        _refuse_standby(facts, network, source_vf, own_standby)
    return move


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
    """What cannot be done where a standby NIC carries the traffic meanwhile."""
    source, destination = facts.source, facts.destination
    if own_standby is not None and own_standby.vlan != (vf.settings.vlan or 0):
        raise Refusal(
            "vlan-differs",
            f"VF {vf.address} is in VLAN {vf.settings.vlan}, its standby NIC in {own_standby.vlan}",
            "Give both the same <vlan>",
        )
    bridges = [inventory.networks[network].bridge for inventory in (source, destination)]
    if bridges[0] != bridges[1]:
        raise Refusal(
            "bridge-differs",
            f"The bridge on {network} is {bridges[0]} on {source.name} and {bridges[1]} on {destination.name}",
            "Give both the same name, or use --network detach, without a bond",
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


def _free_vf(destination: Inventory, network: str, taken: set[str]) -> Vf:
    """The first VF of the network's PF that no guest has and nobody has claimed."""
    name = destination.networks[network].pf
    pf = next((pf for pf in destination.pfs if pf.name == name), None)
    if pf is None or not pf.up:
        raise Refusal("pf-missing", f"{destination.name} has no PF {name} that is up", f"ip link set dev {name} up")
    free = [vf for vf in pf.vfs if vf.guest is None and vf.claim is None and vf.address not in taken]
    if not free:
        raise Refusal(
            "no-free-vf",
            f"{destination.name} has no free VF on {network}: all {len(pf.vfs)} of {name} are taken",
            "Free one, or make more (sriov_numvfs), or choose another host",
        )
    return free[0]


def _guest_side(facts: Facts, wishes: Wishes, nic: Nic, mode: NetworkMode) -> tuple[GuestSide, int]:
    """Who chooses in the guest, and the MTU there. Refuses what only the guest's own reaction could do."""
    link = vf_link(facts, nic.mac)
    if mode is NetworkMode.VFIO:
        return GuestSide.NOBODY, link.mtu if link else 1500
    if link is not None and mode is NetworkMode.FAILOVER:
        return GuestSide.FAILOVER, link.mtu
    if wishes.temporary_bond and mode is NetworkMode.DETACH:
        return _temporary_bond(facts, nic, link)
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


def _temporary_bond(facts: Facts, nic: Nic, link: GuestLink | None) -> tuple[GuestSide, int]:
    """Only where the guest can be told, and has nothing of the kind."""
    if link is None:
        why = facts.guest_silence or "its agent shows no NIC with this MAC"
        raise Refusal(
            "bond-not-made", f"No bond can be made in {facts.guest.name}: {why}", "Do without --temporary-bond"
        )
    if link.master is not None:
        raise Refusal(
            "bond-not-needed", f"The guest has {nic.mac} in {link.master} already", "Do without --temporary-bond"
        )
    if teaming.standby_of(facts.guest, nic) is not None:
        raise Refusal(
            "bond-not-made", f"The guest has another NIC with {nic.mac} already", "Do without --temporary-bond"
        )
    return GuestSide.TEMPORARY_BOND, link.mtu


def _contested(facts: Facts, mode: NetworkMode, side: GuestSide) -> bool:
    inside = facts.guest_network
    two_nics = side is GuestSide.TEMPORARY_BOND or (side is GuestSide.ADDRESSES and mode is NetworkMode.SWITCH)
    if inside is None or not two_nics:
        return False
    return bool(inside.strict_rp_filter) or inside.configured_by == "networkd"


def _about(facts: Facts, move: VfMove) -> Iterator[Finding]:
    yield from carried.missing(facts.destination.name, move)
    if move.stands_by:
        for inventory in (facts.source, facts.destination):
            yield from standby.missing(inventory, move.network, move.vlan, move.mtu)
    elif move.dark:
        yield info("dark", f"{move.mac} is without its VF from before the copy until after it")
    if move.guest_side is GuestSide.HOTPLUG:
        yield warning("hotplug-only", f"{move.mac} is left to the guest's own reaction to a NIC that comes and goes")
    inside = facts.guest_network
    if inside is None or move.guest_side not in (GuestSide.ADDRESSES, GuestSide.TEMPORARY_BOND):
        return
    if inside.strict_rp_filter:
        yield warning(
            "strict-rp-filter",
            f"The guest filters strictly by reverse path ({', '.join(inside.strict_rp_filter)}); "
            "it is loosened on the two NICs while the traffic moves",
        )
    yield from _configured_by(inside.configured_by, move)


def _configured_by(manager: str | None, move: VfMove) -> Iterator[Finding]:
    if manager == "networkd" and move.stands_by:
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
    GuestSide.TEMPORARY_BOND: "a bond is made in it for the migration",
    GuestSide.HOTPLUG: "the guest reacts to hot-plug by itself",
    GuestSide.NOBODY: "QEMU migrates the VF itself",
}


def _reason(moves: list[VfMove]) -> str:
    """Why these modes: once what holds for all NICs, else each by itself."""
    reasons = dict.fromkeys(move.reason for move in moves)
    if not reasons:
        return "the guest has no VF"
    if len(reasons) == 1:
        return next(iter(reasons))
    return "; ".join(f"{move.mac}: {move.mode.value}, {move.reason}" for move in moves)


def _no_vf(guest: Guest, mode: NetworkMode) -> Finding:
    return error("no-vf", f"{guest.name} has no VF, which mode {mode.value} is for", "Use --network virtio, or auto")


def _refuse_virtio(vfs: list[VfRef]) -> Finding:
    addresses = ", ".join(vf.address for vf in vfs)
    return error("has-vf", f"A guest with a VF ({addresses}) does not migrate as virtio alone", "Use --network switch")


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
