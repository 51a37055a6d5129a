"""Teaming pairs: a VF and a virtio NIC of which the guest's net_failover driver makes one."""

from vferry.model.guest import GuestLink, Nic
from vferry.plan.facts import Facts, Refusal, master_of, vf_link

EXAMPLE = "<teaming type='persistent'/> at the virtio NIC, <teaming type='transient' persistent='ITS-ALIAS'/> at the VF"


def standby_of(facts: Facts, nic: Nic) -> Nic | None:
    """The guest's own NIC that stands by for a VF: the one that it is teamed with, else one with its MAC.

    One on a macvtap does where that is on a PF of a physical network.
    """
    others = [other for other in facts.guest.nics if other.vf is None and _reaches_a_network(facts, other)]
    if nic.teamed_with is not None:
        return next((other for other in others if other.alias == nic.teamed_with), None)
    return next((other for other in others if other.mac == nic.mac), None)


def _reaches_a_network(facts: Facts, nic: Nic) -> bool:
    return not nic.relayed and (nic.interface is None or facts.source.network_of(nic.interface) is not None)


def is_teamed(facts: Facts, nic: Nic) -> bool:
    """Whether a VF is meant for a teaming pair; one that was plugged by itself is, where the other NIC says so."""
    standby = standby_of(facts, nic)
    return nic.teaming is not None or (standby is not None and standby.teaming is not None)


def is_alone(facts: Facts, nic: Nic) -> bool:
    """Whether the guest shows the VF of a teaming pair of which no driver makes one: it has two NICs then."""
    shown = {link.name: link for link in facts.links}
    masters = {link.master for link in facts.links if link.mac == nic.mac and link.master is not None}
    # A master that is not shown may be the driver's.
    paired = any(name not in shown or makes_pairs(shown[name]) for name in masters)
    return vf_link(facts, nic.mac) is not None and not paired


def makes_pairs(master: GuestLink) -> bool:
    """Whether a master in the guest is net_failover's: of no kind, and on the virtio device that it comes with.

    `net_failover_create` of Linux gives it that device. A bond, a team, a bridge or a VRF has a kind, or no device.
    """
    return master.kind is None and master.driver == "virtio_net"


def is_pair(facts: Facts, nic: Nic) -> bool:
    """Whether a VF is in a pair of net_failover's: as the guest shows it, or as it is defined where it is silent."""
    link = vf_link(facts, nic.mac)
    if link is not None:
        master = master_of(facts, link)
        return master is not None and makes_pairs(master)
    try:
        refuse_definition(facts, nic)
    except Refusal:
        return False
    return True


def refuse_other_modes(facts: Facts, nic: Nic) -> None:
    """What would tell the guest which NIC to use, where its driver cannot be told. Raises `Refusal`."""
    if is_pair(facts, nic):
        raise Refusal(
            "teaming",
            f"{nic.mac} is a teaming pair, in which the guest's net_failover chooses the NIC",
            "Use --network failover",
        )


def refuse(facts: Facts, nic: Nic) -> None:
    """What mode `failover` cannot do. Raises `Refusal`."""
    refuse_definition(facts, nic)
    if facts.guest_network is None:
        return
    link = vf_link(facts, nic.mac)
    master = master_of(facts, link) if link else None
    if master is None or not makes_pairs(master) or master.mac != nic.mac:
        raise Refusal(
            "no-net-failover",
            f"The guest's net_failover driver does not use {nic.mac}: "
            + (f"{link.name} is by itself" if link else "the guest shows no such VF"),
            "It comes with virtio_net in Linux 4.18 and later, and QEMU shows the VF to no other: look at it there "
            f"(ip link), or use {'--network switch' if is_alone(facts, nic) else 'no <teaming> in the definition'}",
        )


def refuse_definition(facts: Facts, nic: Nic) -> None:
    """A pair that is not defined as one. Raises `Refusal`."""
    standby = standby_of(facts, nic)
    if not is_teamed(facts, nic):
        raise Refusal("not-teamed", f"{nic.mac} is in no teaming pair", f"Define one ({EXAMPLE}), or use another mode")
    if standby is None:
        raise Refusal(
            "teaming-missing",
            f"{nic.mac} is teamed with {nic.teamed_with or 'a NIC'}, which the guest does not have",
            "Give the guest that NIC in its definition, or use --network detach",
        )
    if standby.mac != nic.mac:
        raise Refusal(
            "teaming-macs",
            f"The VF of the teaming pair has {nic.mac}, and {standby.alias} has {standby.mac}",
            "Give both the same MAC in the definition: the guest's driver pairs them by it",
        )
    if standby.teaming != "persistent" or standby.model != "virtio":
        raise Refusal(
            "teaming-not-offered",
            f"{standby.alias} does not offer the guest to fail over: it is no virtio NIC with <teaming>",
            f"Define the pair ({EXAMPLE}) and start the guest anew, or use --network detach",
        )
