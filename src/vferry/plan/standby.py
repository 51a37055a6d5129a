"""The standby path: what a host needs so that a virtio NIC can stand in for a VF."""

from collections.abc import Iterator

from vferry.model.host import AttachmentKind, Bridge, Inventory, Network
from vferry.plan.facts import Finding, error, warning

VLAN_LIBVIRT = (11, 0, 0)
"""The first libvirt that puts a NIC on a Linux bridge into a VLAN (its NEWS of January 2025)."""
INSTEAD = "or use --network detach"


def without_detach(remedy: str) -> str:
    """A remedy for where there is no other mode to be used instead."""
    return remedy.removesuffix(INSTEAD).rstrip(",; ")


def missing(inventory: Inventory, network: str, vlan: int = 0, mtu: int = 0) -> Iterator[Finding]:
    """What is missing on a host for a standby NIC on a physical network, in a VLAN if it is not 0, for an MTU."""
    yield from missing_path(inventory, network, vlan)
    yield from _bond(inventory, network)
    yield from _full(inventory, network)
    uplink = inventory.uplink(network)
    carrier = inventory.bond(uplink) or inventory.pf(uplink)
    if carrier and carrier.mtu < mtu:
        yield error(
            "mtu-too-small",
            f"The guest has an MTU of {mtu}, and {uplink} of {inventory.name} passes {carrier.mtu} to its bridge",
            f"ip link set dev {uplink} mtu {mtu}; or give the guest's NIC a smaller MTU",
        )
    if not inventory.vhost_net:
        yield warning(
            "no-vhost-net",
            f"{inventory.name} has no vhost-net: plugging a VF will stall the standby NIC for a moment",
            "modprobe vhost_net",
        )


def missing_path(inventory: Inventory, network: str, vlan: int = 0) -> Iterator[Finding]:
    """What is missing of the bridge itself, or of what takes a bridge's place."""
    reached, uplink = inventory.networks[network], inventory.uplink(network)
    bridge = inventory.bridge(reached.bridge)
    if reached.bridge is None:
        yield from _macvtap(inventory, reached, uplink, vlan)
    elif bridge is None or uplink not in bridge.ports:
        yield error(
            "no-standby-path",
            f"{inventory.name} has no bridge {reached.bridge} with {uplink} in it",
            f"{_recipe(bridge, reached.bridge, uplink)}; {INSTEAD}",
        )
    elif not bridge.up:
        yield error(
            "standby-path-down",
            f"The bridge {bridge.name} of {inventory.name} is down",
            f"ip link set dev {bridge.name} up",
        )
    elif bridge.kind is AttachmentKind.OPENVSWITCH:
        yield from _openvswitch(inventory, bridge, uplink, vlan)
    elif vlan:
        yield from _missing_vlan(inventory, bridge, uplink, vlan)


def _recipe(bridge: Bridge | None, name: str, uplink: str) -> str:
    if bridge is not None and bridge.kind is AttachmentKind.OPENVSWITCH:
        return f"Put it there: ovs-vsctl add-port {name} {uplink}"
    return f"Make one: ip link add name {name} type bridge; ip link set dev {uplink} master {name}"


def _missing_vlan(inventory: Inventory, bridge: Bridge, uplink: str, vlan: int) -> Iterator[Finding]:
    if inventory.versions.libvirt < VLAN_LIBVIRT:
        yield error(
            "vlan-libvirt",
            f"The VF is in VLAN {vlan}, and libvirt before 11.0 puts no NIC on a bridge of {inventory.name} into one",
            f"Update libvirt there, {INSTEAD}",
        )
    elif vlan not in bridge.vlans.get(uplink, ()):
        yield error(
            "no-vlan",
            f"The VF is in VLAN {vlan}, which {uplink} of {inventory.name} does not pass to the bridge {bridge.name}",
            f"ip link set {bridge.name} type bridge vlan_filtering 1; bridge vlan add dev {uplink} vid {vlan}; "
            f"{INSTEAD}",
        )


def _openvswitch(inventory: Inventory, bridge: Bridge, uplink: str, vlan: int) -> Iterator[Finding]:
    passed = bridge.vlans.get(uplink, (vlan,))
    if vlan not in passed:
        what = f"The VF is in VLAN {vlan}, which" if vlan else "The VF is in no VLAN, and untagged frames are what"
        remedy = f"add port {uplink} trunks {vlan}" if passed else f"clear port {uplink} tag"
        yield error(
            "no-vlan",
            f"{what} {uplink} of {inventory.name} does not pass to the bridge {bridge.name}",
            f"ovs-vsctl {remedy}; {INSTEAD}",
        )
    if bridge.controlled:
        yield warning(
            "bridge-controlled",
            f"The bridge {bridge.name} of {inventory.name} does what its controller's flows say, not what it learns",
            "Make sure that they pass what a new port of the guest's MAC sends and receives",
        )


def _macvtap(inventory: Inventory, reached: Network, uplink: str, vlan: int) -> Iterator[Finding]:
    carrier = inventory.bond(uplink) or inventory.pf(uplink)
    bridge = inventory.bridge_over(uplink)
    if carrier is None or not carrier.up:
        yield error(
            "no-standby-path",
            f"{inventory.name} has no {uplink} that is up, for a macvtap on it",
            f"ip link set dev {uplink} up; {INSTEAD}",
        )
    elif bridge is not None:
        yield error(
            "interface-in-bridge",
            f"{uplink} of {inventory.name} is in the bridge {bridge.name}, and takes no macvtap",
            f'Name it in {inventory.name}\'s agent configuration: bridge = "{bridge.name}" beside pf = "{reached.pf}"',
        )
    elif vlan:
        yield error(
            "no-vlan",
            f"The VF is in VLAN {vlan}, and libvirt puts no macvtap on {uplink} of {inventory.name} into one",
            f"Give {inventory.name} a bridge that passes it, {INSTEAD}",
        )


def _bond(inventory: Inventory, network: str) -> Iterator[Finding]:
    """A switch outside spreads over a bond's PFs also what is for a VF; in switchdev, they may be one NIC's."""
    bond = inventory.bond(inventory.uplink(network))
    pfs = [pf for pf in map(inventory.pf, bond.ports if bond else ()) if pf is not None]
    if bond is not None and bond.mode != "active-backup" and any(not pf.switchdev for pf in pfs):
        yield warning(
            "bond-spreads",
            f"{bond.name} of {inventory.name} is {bond.mode}: the switch outside may send what is for a VF of one of "
            f"{' and '.join(bond.ports)} to another, which does not have it",
            "Use active-backup, or a NIC that makes one switch of both (VF LAG)",
        )


def _full(inventory: Inventory, network: str) -> Iterator[Finding]:
    uplink = inventory.uplink(network)
    bond = inventory.bond(uplink)
    for pf in map(inventory.pf, bond.ports if bond else (uplink,)):
        if pf is None or pf.forwarding_limit is None:
            continue
        # A slave that does not receive has none of the bond's entries yet.
        if len({*pf.forwarding, *(bond.forwarding if bond else ())}) >= pf.forwarding_limit:
            yield error(
                "forwarding-full",
                f"The unicast filter of {pf.name} on {inventory.name} is full ({pf.forwarding_limit} entries)",
                f"Remove entries that nobody needs: bridge fdb show dev {uplink}",
            )
