"""Devices that migrate themselves: of which QEMU says so, and what the destination must have for them.

QEMU gives reasons against a migration, each begun with its name of the device that it means: a PCI address, a UUID.
Old ones name none.
"""

import re
from collections.abc import Collection, Iterable, Iterator

from vferry.model.guest import Guest, HostDevice, Nic, VfRef
from vferry.model.host import Inventory, Vf
from vferry.plan import estimate_words, teaming
from vferry.plan.facts import Facts, Finding, Refusal, error, info
from vferry.plan.plan import DeviceMove, NetworkMode, Plan, VfMove

_NAMED = re.compile(r"([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}): ")
_OVERRIDE = (
    "Take away what it names (virsh detach-device); if it is a device whose driver can migrate it, "
    "let its definition say so to QEMU: <qemu:override> with enable-migration=on"
)


def blocked(guest: Guest, name: str) -> list[str] | None:
    """What QEMU says against migrating one device of a guest; None where it was not asked."""
    if guest.blockers is None:
        return None
    return [reason for reason in guest.blockers if _concerns(reason, {name})]


def migrates(facts: Facts, nic: Nic, ref: VfRef, taken: Collection[str]) -> bool:
    """Whether a VF can be left to its own driver, without having been asked to."""
    try:
        refuse(facts, nic, ref)
        free_vf(facts, ref, taken)
    except Refusal:
        return False
    return True


def refuse(facts: Facts, nic: Nic, ref: VfRef) -> None:
    """What mode `vfio` cannot do. Raises `Refusal`."""
    if facts.guest.blockers is None:
        raise Refusal(
            "not-asked",
            f"QEMU of {facts.guest.name} has not said whether VF {ref.address} migrates: {_silence(facts)}",
            "Look at its monitor, or use --network switch",
        )
    reasons = blocked(facts.guest, ref.address)
    if reasons:
        raise Refusal("vf-does-not-migrate", f"QEMU does not migrate the VF: {reasons[0]}", "Use --network switch")
    if teaming.is_teamed(facts, nic):
        raise Refusal(
            "teaming",
            f"{nic.mac} is a teaming pair, from which QEMU takes the VF away to migrate",
            "Use --network failover",
        )


def free_vf(facts: Facts, ref: VfRef, taken: Collection[str]) -> Vf:
    """The first free VF of the destination on the same network, bound to the same driver. Raises `Refusal`."""
    source, destination = facts.source, facts.destination
    network, vf = source.network_of(ref.pf), source.vf(ref.address)
    pfs = destination.networks[network].pfs if network in destination.networks else ()
    driver = vf.driver if vf else None
    for one in (vf for each in destination.pfs if each.name in pfs for vf in each.vfs):
        if driver and one.driver == driver and not (one.guest or one.claim or one.address in taken):
            return one
    raise Refusal(
        "no-migratable-vf",
        f"{destination.name} has no free VF on {network} that is bound to {driver}, as {ref.address} is",
        f"Bind one to it there (driverctl set-override ADDRESS {driver}), or use --network switch",
    )


def plan_devices(facts: Facts) -> tuple[list[DeviceMove], list[Finding]]:
    """The mediated devices, which migrate whatever the NICs do, and what the destination lacks for them."""
    moves: list[DeviceMove] = []
    findings: list[Finding] = []
    for device in facts.guest.devices:
        if device.kind != "mdev":
            continue
        try:
            moves.append(_plan_device(facts, device, moves))
        except Refusal as refusal:
            findings.append(refusal.finding)
    return moves, findings


def _plan_device(facts: Facts, device: HostDevice, planned: Collection[DeviceMove]) -> DeviceMove:
    source, destination = facts.source, facts.destination
    here = next((mdev for mdev in source.mdevs if mdev.uuid == device.name), None)
    if here is None:
        raise Refusal(
            "mdev-unknown",
            f"{source.name} does not show the mediated device {device.name}",
            "Look there at /sys/bus/mdev/devices",
        )
    there = next((mdev for mdev in destination.mdevs if mdev.uuid == device.name), None)
    user = next((guest.name for guest in destination.guests if _has(guest.devices, device.name)), None)
    if there is not None and (there.type != here.type or user is not None):
        whose = f" of guest {user}" if user else ""
        raise Refusal(
            "mdev-taken",
            f"{destination.name} has a mediated device {device.name} already, a {there.type}{whose}",
            f"Remove it, if it is a leftover: echo 1 > /sys/bus/mdev/devices/{device.name}/remove",
        )
    parent = there.parent if there else _parent(destination, here.type, planned)
    return DeviceMove(
        uuid=device.name,
        type=here.type,
        source_parent=here.parent,
        destination_parent=parent,
        exists=there is not None,
    )


def _parent(destination: Inventory, kind: str, planned: Collection[DeviceMove]) -> str:
    """The first device of the destination that has one of this type left."""
    offers = [offer for offer in destination.mdev_types if offer.name == kind]
    if not offers:
        known = ", ".join(sorted({offer.name for offer in destination.mdev_types})) or "none at all"
        raise Refusal(
            "no-mdev-type",
            f"{destination.name} offers no mediated devices of type {kind}; it offers {known}",
            "Load their driver there, or choose another host",
        )
    for offer in offers:
        used = sum(move.destination_parent == offer.parent and not move.exists for move in planned)
        if offer.available > used:
            return offer.parent
    raise Refusal(
        "no-free-mdev",
        f"{destination.name} can make no more mediated devices of type {kind}",
        "Free one there, or choose another host",
    )


def _has(devices: Collection[HostDevice], name: str) -> bool:
    return any(device.name == name for device in devices)


def about(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """What QEMU says against the migration, once the VFs are gone that are unplugged before it."""
    guest = facts.guest
    names = [*(move.uuid for move in plan.devices), *staying(plan.moves)]
    if guest.blockers is None and plan.devices:
        yield error(
            "not-asked",
            f"QEMU of {guest.name} has not said whether {' and '.join(names)} migrates: {_silence(facts)}",
            'Look at its monitor: virsh qemu-monitor-command GUEST --pretty \'{"execute": "query-migrate"}\'',
        )
    unplugged = {move.source.address for move in plan.moves if not _stays(move.mode)}
    for reason in guest.blockers or ():
        if not (unplugged and _concerns(reason, unplugged)):
            yield error("qemu-refuses", f"QEMU does not migrate {guest.name}: {reason}", _OVERRIDE)
    if names:
        how_much = estimate_words.device_text(facts, plan.transfer, plan.device_state)
        yield info("device-state", f"QEMU sends the state of {', '.join(names)}, {how_much}")


def staying(moves: Iterable[VfMove]) -> list[str]:
    """The addresses of the VFs that stay plugged."""
    return [move.source.address for move in moves if _stays(move.mode)]


def _stays(mode: NetworkMode) -> bool:
    return mode is NetworkMode.VFIO


def _concerns(reason: str, names: Collection[str]) -> bool:
    """Whether a reason is, or may be, against one of these devices."""
    named = _NAMED.match(reason)
    return named[1] in names if named else "VFIO" in reason


def _silence(facts: Facts) -> str:
    return facts.qemu_silence or "it was not asked"
