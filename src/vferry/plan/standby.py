"""The standby path: what a host needs so that a virtio NIC can stand in for a VF."""

from collections.abc import Iterator

from vferry.model.host import Inventory
from vferry.plan.facts import Finding, error, warning


def missing(inventory: Inventory, network: str) -> Iterator[Finding]:
    """What is missing on a host for a standby NIC on a physical network."""
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
    pf = next((pf for pf in inventory.pfs if pf.name == reached.pf), None)
    if pf and pf.forwarding_limit is not None and len(pf.forwarding) >= pf.forwarding_limit:
        yield error(
            "forwarding-full",
            f"The unicast filter of {pf.name} on {inventory.name} is full ({pf.forwarding_limit} entries)",
            f"Remove entries that nobody needs: bridge fdb show dev {pf.name}",
        )
    if not inventory.vhost_net:
        yield warning(
            "no-vhost-net",
            f"{inventory.name} has no vhost-net: plugging a VF will stall the standby NIC for a moment",
            "modprobe vhost_net",
        )
