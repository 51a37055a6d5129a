"""A hypervisor: its functions, its networks, what it holds free and what is claimed on it."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct, field, structs

from vferry.model.guest import Guest, Nic
from vferry.model.ovn import Chassis
from vferry.model.relay import Relay, RelayGround, RelayVf

DeviceName = Annotated[str, Meta(pattern=r"^[^/\s]{1,15}\Z")]
"""The name of a network interface, as the kernel allows it."""


class LinkState(StrEnum):
    """What the PF shows a VF as its link (IFLA_VF_LINK_STATE)."""

    AUTO = "auto"
    ENABLE = "enable"
    DISABLE = "disable"


class VfSettings(Struct, frozen=True, kw_only=True):
    """What the PF's driver keeps for one VF, as IFLA_VFINFO_LIST says it.

    `None` means, when read, that the driver does not say, and, when applied, that it is left as it is.
    Rates are in Mbit/s, 0 being unlimited. VLAN 0 is untagged.
    """

    mac: str | None = None
    vlan: int | None = None
    qos: int | None = None
    trust: bool | None = None
    spoof_check: bool | None = None
    link_state: LinkState | None = None
    min_tx_rate: int | None = None
    max_tx_rate: int | None = None


NO_MAC = "00:00:00:00:00:00"
"""What a PF shows for a VF that it has given no MAC."""

WIPED = VfSettings(
    mac=NO_MAC,
    vlan=0,
    qos=0,
    trust=False,
    spoof_check=True,
    link_state=LinkState.AUTO,
    min_tx_rate=0,
    max_tx_rate=0,
)
"""A VF as the kernel makes it, with most drivers: those of Mellanox, and others, start without the spoof check."""


def opened(vf: RelayVf) -> VfSettings:
    """A VF that sends and receives with other MACs than its own, in what its driver says at all."""
    return VfSettings(trust=None if vf.trust is None else True, spoof_check=None if vf.spoof_check is None else False)


class Vf(Struct, frozen=True, kw_only=True):
    """A virtual function. `address` is its PCI address (``0000:01:10.0``), `driver` what is bound to it now."""

    pf: str
    index: int
    address: str
    driver: str | None = None
    interface: str | None = None
    """Its network interface on the host, while a NIC driver is bound to it."""
    iommu_group: int | None = None
    representor: str | None = None
    """The interface by which the switch in the NIC has it as a port, in switchdev mode."""
    settings: VfSettings = VfSettings()
    guest: str | None = None
    """The guest that has it, running or only defined."""
    claim: str | None = None
    """The operation that has reserved it."""


class Pf(Struct, frozen=True, kw_only=True):
    """A physical function, by its interface's name."""

    name: str
    address: str
    driver: str
    mac: str
    mtu: int = 1500
    up: bool = True
    eswitch: str | None = None
    """``switchdev`` where the kernel says of which switch its interface is a port; None where it does not."""
    forwarding: tuple[str, ...] = ()
    """The MACs added to its unicast filter (``bridge fdb … self permanent``)."""
    forwarding_limit: int | None = None
    """How many of them its driver holds, where that is known."""
    vfs: tuple[Vf, ...] = ()

    @property
    def switchdev(self) -> bool:
        """Whether what its VFs send and receive passes their representors."""
        return self.eswitch == "switchdev"

    def wiped(self, vf: Vf) -> VfSettings:
        """One of its VFs as its driver makes it, in those settings that this says at all.

        The spoof check, which drivers begin with on or off, is that of its other VFs that nothing was ever set on; on
        where there are none, or they differ.
        """
        said = {name for name in WIPED.__struct_fields__ if getattr(vf.settings, name) is not None}
        other = (each for each in self.vfs if each.index != vf.index and each.guest is None and each.claim is None)
        checks = {each.settings.spoof_check for each in other if _untouched(each.settings)}
        usual = structs.replace(WIPED, spoof_check=checks != {False})
        return VfSettings(**{name: getattr(usual, name) for name in said | {"mac"}})


def _untouched(settings: VfSettings) -> bool:
    """Whether a VF is as the kernel makes it, as far as its driver says, and whatever its spoof check is."""
    said = (name for name in WIPED.__struct_fields__ if name != "spoof_check")
    return all(getattr(settings, name) in (None, getattr(WIPED, name)) for name in said)


class Network(Struct, frozen=True, kw_only=True):
    """A physical network as this host reaches it: the PFs whose VFs are on it, and the standby path's bridge.

    Without a bridge, standby NICs are on macvtaps on the PF, or on the bond that it is in.
    """

    pf: str
    bridge: str | None = None
    more_pfs: tuple[str, ...] = ()

    @property
    def pfs(self) -> tuple[str, ...]:
        return (self.pf, *self.more_pfs)


class Bond(Struct, frozen=True, kw_only=True):
    """A bond and its slaves, the `ports`; `mode` is the kernel's, such as ``active-backup`` or ``802.3ad``."""

    name: str
    mode: str
    ports: tuple[str, ...] = ()
    up: bool = True
    mtu: int = 1500
    forwarding: tuple[str, ...] = ()
    """The MACs added to its unicast filter; the kernel gives them to the filters of the slaves that receive."""


class AttachmentKind(StrEnum):
    """How a virtio NIC reaches the network."""

    BRIDGE = "bridge"
    """A bridge of Linux."""
    OPENVSWITCH = "openvswitch"
    """A bridge of Open vSwitch."""
    MACVTAP = "macvtap"
    """A macvtap of its own on an interface."""


class Attachment(Struct, frozen=True, kw_only=True):
    """What a virtio NIC is on, on one host: `device` is a bridge, or the interface that its macvtap is on."""

    kind: AttachmentKind = AttachmentKind.BRIDGE
    device: DeviceName

    @property
    def bridged(self) -> bool:
        """Whether it is a bridge; a macvtap has the kernel pass its MAC by itself, as long as it is up."""
        return self.kind is not AttachmentKind.MACVTAP


class Bridge(Struct, frozen=True, kw_only=True):
    """A bridge and its ports.

    One of Linux has `vlan_filtering` as the kernel has it, and `vlans` that each port then passes. One of Open vSwitch
    has always: there, a port passes all VLANs that is not in `vlans`, and 0 stands for untagged frames.
    """

    name: str
    kind: AttachmentKind = AttachmentKind.BRIDGE
    ports: tuple[str, ...] = ()
    up: bool = True
    vlan_filtering: bool = False
    vlans: dict[str, tuple[int, ...]] = field(default_factory=dict)
    controlled: bool = False
    """Whether it does what flows say that come from a controller (Open vSwitch), and need not learn MACs."""


class MdevType(Struct, frozen=True, kw_only=True):
    """A type of mediated devices that a device of this host offers, its `parent`, and how many more it can make."""

    name: str
    parent: str
    available: int = 0


class Mdev(Struct, frozen=True, kw_only=True):
    """A mediated device that exists on this host."""

    uuid: str
    type: str
    parent: str


class Versions(Struct, frozen=True, kw_only=True):
    """What runs on a host. QEMU's and libvirt's as (major, minor, micro)."""

    vferry: str
    kernel: str
    qemu: tuple[int, int, int]
    libvirt: tuple[int, int, int]
    microcode: str | None = None
    cpu_model: str | None = None


class MigrationEndpoint(Struct, frozen=True, kw_only=True):
    """Where a host takes migrations in: the address of its migration network, its ports, how many at a time."""

    address: str
    ports: tuple[int, int]
    slots: int = 2
    bandwidth: int | None = None
    """Bytes per second for all migrations that leave the host, as it is now; None is no limit."""
    bandwidth_set: bool = False
    """Whether a controller has set that, over what the agent's configuration says."""
    bandwidth_configured: int | None = None
    """What the agent's configuration says; an older agent does not tell."""


class QemuTls(Struct, frozen=True, kw_only=True):
    """libvirt's certificates, with which QEMU may send memory to another host by itself."""

    names: tuple[str, ...] = ()
    """Of the certificate that QEMU shows where it takes a guest in: DNS names."""
    authority: str = ""
    """SHA-256, in hexadecimal digits, of the public key of the authority by which it knows others."""
    lacks: str | None = None
    """Why there can be no such thing here; None where nothing is known against it."""


CPU_SHARE = 0.5
"""Of a host's processors, what all its gateways get where its agent is told nothing else."""


def gateway_cpus(share: float, cpus: int) -> float:
    """How many of a host's processors its gateways get, all of them together: one at least."""
    return max(1.0, share * cpus)


class Claim(Struct, frozen=True, kw_only=True):
    """What one operation has reserved on a host, durably: nobody else may touch it until it is released.

    `epoch` grows with every controller that takes the operation over; calls of a lower one are refused.
    """

    operation: str
    epoch: int = 1
    guest: str | None = None
    vfs: tuple[str, ...] = ()
    """VFs, by their PCI addresses."""
    slot: bool = True
    """Whether it takes one of the host's migration slots; what lasts, such as a relay's, does not."""


class Inventory(Struct, frozen=True, kw_only=True):
    """All that planning asks of a host."""

    name: str
    versions: Versions
    migration: MigrationEndpoint
    networks: dict[str, Network] = field(default_factory=dict)
    pfs: tuple[Pf, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    bonds: tuple[Bond, ...] = ()
    mdev_types: tuple[MdevType, ...] = ()
    mdevs: tuple[Mdev, ...] = ()
    guests: tuple[Guest, ...] = ()
    claims: tuple[Claim, ...] = ()
    link_rate: int | None = None
    """Bytes per second that the NIC of the migration network's address says it does; None where it does not say."""
    memory_total: int = 0
    memory_free: int = 0
    """In bytes; free counts what the kernel can reclaim."""
    cpus: int = 1
    cpu_share: float = CPU_SHARE
    """How much of them its gateways get, as `gateway_cpus` counts it; an older agent does not say."""
    vhost_net: bool = False
    """Whether the standby NIC can run on vhost-net, so that plugging devices does not stall it."""
    vhost_features: int | None = None
    """What vhost-net offers, by virtio's feature bits; None where it does not say."""
    iommu: bool = False
    codecs: tuple[str, ...] = ()
    """What a gateway of this host can compress with."""
    connections: int | None = None
    """How many the kernel tracks at the moment; None where it has no connection tracking loaded."""
    relay: Relay | None = None
    chassis: Chassis | None = None
    """What it is to OVN; None where it is nothing."""
    relay_ground: RelayGround = RelayGround()
    """What there is here to make a relay of."""
    keepalive_off: bool | None = None
    """Whether libvirt's keepalive leaves migrations' connections alone (qemu.conf); None where it cannot be read."""
    qemu_tls: QemuTls | None = None
    """An older agent does not say."""

    def vf(self, address: str) -> Vf | None:
        """The VF at a PCI address, if this host has it."""
        return next((vf for pf in self.pfs for vf in pf.vfs if vf.address == address), None)

    def pf(self, name: str) -> Pf | None:
        return next((pf for pf in self.pfs if pf.name == name), None)

    def bond(self, name: str) -> Bond | None:
        return next((bond for bond in self.bonds if bond.name == name), None)

    def forwarding(self, interface: str) -> tuple[str, ...]:
        """The MACs added to the unicast filter of a PF or of a bond."""
        found = self.pf(interface) or self.bond(interface)
        return found.forwarding if found else ()

    def bridge(self, name: str | None) -> Bridge | None:
        return next((bridge for bridge in self.bridges if bridge.name == name), None)

    def bridge_over(self, interface: str) -> Bridge | None:
        """The bridge that an interface is a port of."""
        return next((bridge for bridge in self.bridges if interface in bridge.ports), None)

    def network_of(self, interface: str) -> str | None:
        """The name of the physical network that a PF, or a bond of its PFs, is on."""
        return next(
            (name for name, each in self.networks.items() if interface in each.pfs or interface == self.uplink(name)),
            None,
        )

    def network_of_nic(self, nic: Nic) -> str | None:
        """The name of the physical network that a NIC on a bridge, or on a macvtap on a PF, is on.

        That of a port of OVN's is the one that it was on before.
        """
        if nic.interface is not None:
            return self.network_of(nic.interface)
        if nic.relay_bridge is not None:
            port = self.relay.port(nic.mac) if self.relay else None
            if port is not None and port.switch is not None and port.switch.logical_port is not None:
                return port.switch.network if port.switch.network in self.networks else None
            return next(map(self.network_of, self.relay_pfs(nic.relay_bridge)), None)
        return {each.bridge: name for name, each in self.networks.items() if each.bridge}.get(nic.bridge or "")

    def relay_pfs(self, bridge: str) -> tuple[str, ...]:
        """The PFs of the VFs that are the uplinks of a switched relay's bridge, the one that it prefers first."""
        found = self.relay.bridge(bridge) if self.relay else None
        vfs = (self.vf(uplink.address) for uplink in found.uplinks) if found else ()
        return tuple(vf.pf for vf in vfs if vf is not None)

    def uplink(self, network: str) -> str:
        """The interface by which what is on no VF reaches a physical network: one of its PFs, or the bond over it."""
        reached = self.networks[network]
        bonds = {port: bond.name for bond in self.bonds for port in bond.ports}
        ways = [bonds.get(pf, pf) for pf in reached.pfs]
        bridge = self.bridge(reached.bridge)
        return next((way for way in ways if bridge and way in bridge.ports), ways[0])

    def attachment(self, network: str) -> Attachment:
        """What a standby NIC on a physical network is put on."""
        name = self.networks[network].bridge
        if name is None:
            return Attachment(kind=AttachmentKind.MACVTAP, device=self.uplink(network))
        bridge = self.bridge(name)
        return Attachment(kind=bridge.kind if bridge else AttachmentKind.BRIDGE, device=name)

    def guest(self, name: str) -> Guest | None:
        return next((guest for guest in self.guests if guest.name == name), None)
