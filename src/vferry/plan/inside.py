"""Who chooses inside the guest, as far as its agent tells, and what there may get in the way."""

from collections.abc import Iterator

from vferry.model.guest import GuestLink, Nic
from vferry.plan import teaming
from vferry.plan.facts import Facts, Finding, Refusal, Wishes, hardware_links, info, master_of, vf_link, warning
from vferry.plan.plan import GuestSide, NetworkMode, VfMove

REASONS = {
    GuestSide.BOND: "its own bond chooses the NIC",
    GuestSide.ADDRESSES: "its agent moves addresses and routes",
    GuestSide.FAILOVER: "its net_failover driver chooses the NIC",
    GuestSide.TEMPORARY_BOND: "a bond is made in it for the migration",
    GuestSide.HOTPLUG: "the guest reacts to hot-plug by itself",
}
_USUAL_MTU = 1500
_CLIENTS = ("ifupdown", "dhcp")
"""What may go by a DHCP client that has to be started anew for another NIC."""
_CHOOSING = ("active-backup", "balance-tlb", "balance-alb")
"""The modes of a bond in which one NIC is the active one (`bond_uses_primary` of Linux)."""
_TOLD = {
    "networkd": "systemd-networkd, which configures the guest, is told to leave the new NICs alone meanwhile, and "
    "then to take up the one that the guest ends with, with what that has",
    "NetworkManager": "NetworkManager, which configures the guest, is told to leave the new NICs alone meanwhile, and "
    "then to take up the one that the guest ends with, with what that has; before 1.44 it does so at the next boot",
}
"""What is told to what configures a guest, where that would fight two NICs of one MAC."""


def side_of(facts: Facts, wishes: Wishes, nic: Nic, mode: NetworkMode) -> tuple[GuestSide, int]:
    """Who chooses in the guest, and the MTU there. Refuses what only the guest's own reaction could do."""
    link = vf_link(facts, nic.mac)
    if mode in (NetworkMode.VFIO, NetworkMode.MACVTAP, NetworkMode.RELAY):
        return GuestSide.NOBODY, link.mtu if link else _USUAL_MTU
    _refuse_several(facts, nic)
    if link is not None and mode is NetworkMode.FAILOVER:
        return GuestSide.FAILOVER, link.mtu
    bonded = link is not None and in_bond(facts, link)
    if link is not None and link.master is not None and not bonded and not wishes.accept_interruption:
        raise _not_in_bond(facts, link)
    if wishes.temporary_bond and mode is NetworkMode.DETACH:
        return _temporary_bond(facts, nic, link)
    if link is not None and (bonded or link.master is None):
        return (GuestSide.BOND if bonded else GuestSide.ADDRESSES), link.mtu
    if link is None and not wishes.accept_interruption and _needs_telling(facts, nic, mode):
        why = facts.guest_silence or "its agent shows no NIC with this MAC"
        raise Refusal(
            "guest-not-reached",
            f"vferry cannot move {nic.mac} inside {facts.guest.name}: {why}",
            "Run qemu-guest-agent in the guest, or accept with --accept-interruption that it is interrupted until "
            "its own configuration brings the new NIC up",
        )
    return GuestSide.HOTPLUG, link.mtu if link else _USUAL_MTU


def _needs_telling(facts: Facts, nic: Nic, mode: NetworkMode) -> bool:
    """Whether the guest's traffic stops for good unless somebody in it takes up the new VF.

    In mode `detach` it does with a NIC beside the VF: the guest goes on using that, and what is for it goes to the VF.
    A lone VF comes back to a guest that has been offline anyway, as when it boots.
    """
    beside = mode is NetworkMode.DETACH and teaming.standby_of(facts, nic) is not None
    return beside or mode is NetworkMode.SWITCH


def in_bond(facts: Facts, link: GuestLink) -> bool:
    """Whether the guest has a NIC in a bond. Raises `Refusal` where that has no active NIC that could be chosen."""
    master = master_of(facts, link)
    if master is None or master.kind != "bond":
        return False
    if master.bond_mode not in (None, *_CHOOSING):
        raise Refusal(
            "bond-chooses-none",
            f"The guest's bond {master.name} sends by all of its NICs ({master.bond_mode}): "
            "there is no active one that vferry could choose",
            f"Give it one in the guest: mode active-backup (also {' and '.join(_CHOOSING[1:])})",
        )
    return True


def _not_in_bond(facts: Facts, link: GuestLink) -> Refusal:
    master = master_of(facts, link)
    kind = master.kind if master and master.kind else "of a kind that it does not tell"
    return Refusal(
        "not-in-a-bond",
        f"The guest has its VF {link.name} in {link.master} ({kind}), and vferry moves what is in a bond or by itself",
        f"Take it out of {link.master} for the migration, or accept with --accept-interruption that the guest is "
        "interrupted until its own configuration puts the new VF there",
    )


def has_virtio(facts: Facts, mac: str) -> bool:
    """Whether the guest shows a NIC on virtio with this MAC, which it has from its bond or of its own."""
    return any(link.mac == mac and link.driver == "virtio_net" for link in facts.links)


def _refuse_several(facts: Facts, nic: Nic) -> None:
    """Scripts in the guest know the NIC that stands by because it is on virtio, and the VF because it is not."""
    others = hardware_links(facts, nic.mac)
    if len(others) > 1:
        named = ", ".join(f"{link.name} by {link.driver}" for link in others)
        raise Refusal(
            "standby-not-virtio",
            f"The guest has several NICs with {nic.mac} that are not on virtio ({named}), "
            "and vferry knows the VF by that",
            "Make all but the VF virtio NICs in its definition (<model type='virtio'/>), and start the guest anew",
        )


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
    if teaming.standby_of(facts, nic) is not None:
        raise Refusal(
            "bond-not-made", f"The guest has another NIC with {nic.mac} already", "Do without --temporary-bond"
        )
    return GuestSide.TEMPORARY_BOND, link.mtu


def managed(facts: Facts) -> bool:
    """Whether what configures the guest can be told of another NIC."""
    return facts.guest_network is not None and facts.guest_network.configured_by in _TOLD


def contested(facts: Facts, mode: NetworkMode, side: GuestSide) -> bool:
    """Whether something in the guest fights two NICs of one MAC, or keeps to the one that goes."""
    inside = facts.guest_network
    two_nics = side is GuestSide.TEMPORARY_BOND or (side is GuestSide.ADDRESSES and mode is NetworkMode.SWITCH)
    if inside is None or not two_nics:
        return False
    return bool(inside.strict_rp_filter) or inside.configured_by in (*_TOLD, *_CLIENTS)


def about(facts: Facts, move: VfMove) -> Iterator[Finding]:
    """What is to say of how a guest's NIC is moved within."""
    if move.guest_side is GuestSide.HOTPLUG:
        yield warning("hotplug-only", f"{move.mac} is left to the guest's own reaction to a NIC that comes and goes")
    yield from told(facts, vf_link(facts, move.mac), move.guest_side, contested=move.contested)


def told(facts: Facts, link: GuestLink | None, side: GuestSide, *, contested: bool) -> Iterator[Finding]:
    """What is to say of a guest that has two NICs of one MAC for a while, of which `link` is the one it has now."""
    inside = facts.guest_network
    if inside is None or side not in (GuestSide.ADDRESSES, GuestSide.TEMPORARY_BOND):
        return
    if inside.strict_rp_filter:
        yield warning(
            "strict-rp-filter",
            f"The guest filters strictly by reverse path ({', '.join(inside.strict_rp_filter)}); "
            "it is loosened on the two NICs while the traffic moves",
        )
    yield from _configured_by(inside.configured_by, link, contested=contested)


def _configured_by(manager: str | None, link: GuestLink | None, *, contested: bool) -> Iterator[Finding]:
    if manager not in _TOLD:
        return
    if not contested:
        yield warning("configured-by", f"The guest's network is configured by {manager}, which may interfere")
        return
    yield info("configured-by", _TOLD[manager])
    leased = [each.address for each in link.addresses if each.dynamic and each.family == "inet"] if link else []
    if leased and manager == "NetworkManager":
        yield warning(
            "lease-not-renewed",
            f"{', '.join(leased)} is leased, and {manager} before 1.44 does not renew the lease after the migration",
            "If it is older, boot the guest before the lease ends, or give it a fixed address",
        )
