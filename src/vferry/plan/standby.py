"""The standby path: what a host needs so that a virtio NIC can stand in for a VF."""

from collections.abc import Iterator

from vferry.model.host import Bridge, Inventory
from vferry.plan.facts import Finding, error, warning

VLAN_LIBVIRT = (11, 0, 0)
"""The first libvirt that puts a NIC on a Linux bridge into a VLAN (its NEWS of January 2025)."""


def missing(inventory: Inventory, network: str, vlan: int = 0, mtu: int = 0) -> Iterator[Finding]:
    """What is missing on a host for a standby NIC on a physical network, in a VLAN if it is not 0, for an MTU."""
    reached = inventory.networks[network]
    bridge = next((bridge for bridge in inventory.bridges if bridge.name == reached.bridge), None)
    if bridge is None or reached.pf not in bridge.ports:
        yield error(
            "no-standby-path",
            f"{inventory.name} has no bridge {reached.bridge} with {reached.pf} in it",
            f"Make one: ip link add name {reached.bridge} type bridge; "
            f"ip link set dev {reached.pf} master {reached.bridge}; or use --network detach",
        )
    elif not bridge.up:
        yield error(
            "standby-path-down",
            f"The bridge {bridge.name} of {inventory.name} is down",
            f"ip link set dev {bridge.name} up",
        )
    elif vlan:
        yield from _missing_vlan(inventory, bridge, reached.pf, vlan)
    pf = next((pf for pf in inventory.pfs if pf.name == reached.pf), None)
    if pf and pf.forwarding_limit is not None and len(pf.forwarding) >= pf.forwarding_limit:
        yield error(
            "forwarding-full",
            f"The unicast filter of {pf.name} on {inventory.name} is full ({pf.forwarding_limit} entries)",
            f"Remove entries that nobody needs: bridge fdb show dev {pf.name}",
        )
    if pf and pf.mtu < mtu:
        yield error(
            "mtu-too-small",
            f"The guest has an MTU of {mtu}, and {pf.name} of {inventory.name} passes {pf.mtu} to its bridge",
            f"ip link set dev {pf.name} mtu {mtu}; or give the guest's NIC a smaller MTU",
        )
    if not inventory.vhost_net:
        yield warning(
            "no-vhost-net",
            f"{inventory.name} has no vhost-net: plugging a VF will stall the standby NIC for a moment",
            "modprobe vhost_net",
        )


def _missing_vlan(inventory: Inventory, bridge: Bridge, pf: str, vlan: int) -> Iterator[Finding]:
    instead = "or use --network detach"
    if inventory.versions.libvirt < VLAN_LIBVIRT:
        yield error(
            "vlan-libvirt",
            f"The VF is in VLAN {vlan}, and libvirt before 11.0 puts no NIC on a bridge of {inventory.name} into one",
            f"Update libvirt there, {instead}",
        )
    elif vlan not in bridge.vlans.get(pf, ()):
        yield error(
            "no-vlan",
            f"The VF is in VLAN {vlan}, which {pf} of {inventory.name} does not pass to the bridge {bridge.name}",
            f"ip link set {bridge.name} type bridge vlan_filtering 1; bridge vlan add dev {pf} vid {vlan}; {instead}",
        )
