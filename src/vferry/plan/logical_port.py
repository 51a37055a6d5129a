"""What a logical port of OVN's needs of a host."""

from vferry.model.host import Inventory
from vferry.model.ovn import Chassis, KnownPort
from vferry.plan.facts import Refusal


def unknown(name: str, why: str) -> Refusal:
    """Where OVN does not say what there is of a port."""
    return Refusal(
        "northbound-unknown",
        f"What OVN has of {name} is not known: {why}",
        "See that the controller reaches its northbound database, which its configuration names: [ovn] northbound",
    )


def chassis_of(host: Inventory, name: str) -> Chassis:
    """The host as OVN has it, with room for ports on vhost-user. Raises `Refusal`."""
    found = host.chassis
    if found is None or not found.userspace or not found.connected:
        raise Refusal(
            "ovn-missing",
            f"{name} is a port of OVN's, and {host.name} {_lacks(found)}",
            "Set OVN up there, or choose another host",
        )
    return found


def refuse_without_mapping(port: KnownPort, host: str, chassis: Chassis) -> None:
    """One mapping is enough: of a switch's several physical networks, a chassis is to map one (ovn-architecture(7)).

    Raises `Refusal`.
    """
    if not port.localnets or not set(port.localnets).isdisjoint(chassis.networks):
        return
    raise Refusal(
        "ovn-no-mapping",
        f"The switch of {port.binding.name} goes out to {' or '.join(port.localnets)} by a localnet port, and {host} "
        "maps that to no bridge in user space: the guest would be cut off from there",
        f"On {host}: ovs-vsctl set Open_vSwitch . external_ids:ovn-bridge-mappings={port.localnets[0]}:BRIDGE (beside "
        "the mappings that it has); or choose another host",
    )


def _lacks(found: Chassis | None) -> str:
    if found is None:
        return "is no chassis of OVN's (external_ids: system-id, ovn-remote)"
    if not found.userspace:
        return f"has no {found.bridge} in user space (external_ids:ovn-bridge-datapath-type=netdev)"
    return "has no ovn-controller that is connected"
