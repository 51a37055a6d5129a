"""A hypervisor: its functions, its networks, what it holds free and what is claimed on it."""

from enum import StrEnum

from msgspec import Struct, field

from vferry.model.guest import Guest


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
"""A VF as the kernel makes it."""


class Vf(Struct, frozen=True, kw_only=True):
    """A virtual function. `address` is its PCI address (``0000:01:10.0``), `driver` what is bound to it now."""

    pf: str
    index: int
    address: str
    driver: str | None = None
    interface: str | None = None
    """Its network interface on the host, while a NIC driver is bound to it."""
    iommu_group: int | None = None
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
    """``legacy`` or ``switchdev``; None where devlink does not say."""
    forwarding: tuple[str, ...] = ()
    """The MACs added to its unicast filter (``bridge fdb … self permanent``)."""
    forwarding_limit: int | None = None
    """How many of them its driver holds, where that is known."""
    vfs: tuple[Vf, ...] = ()


class Network(Struct, frozen=True, kw_only=True):
    """A physical network as this host reaches it: the PF whose VFs are on it, and the standby path's bridge."""

    pf: str
    bridge: str


class Bridge(Struct, frozen=True, kw_only=True):
    """A Linux bridge and its ports; `vlan_filtering` as the kernel has it, and `vlans` that each port then passes."""

    name: str
    ports: tuple[str, ...] = ()
    up: bool = True
    vlan_filtering: bool = False
    vlans: dict[str, tuple[int, ...]] = field(default_factory=dict)


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
    """Bytes per second for all migrations that leave the host; None is no limit."""


class Claim(Struct, frozen=True, kw_only=True):
    """What one operation has reserved on a host, durably: nobody else may touch it until it is released.

    `epoch` grows with every controller that takes the operation over; calls of a lower one are refused.
    """

    operation: str
    epoch: int = 1
    guest: str | None = None
    vfs: tuple[str, ...] = ()
    """VFs, by their PCI addresses."""


class Inventory(Struct, frozen=True, kw_only=True):
    """All that planning asks of a host."""

    name: str
    versions: Versions
    migration: MigrationEndpoint
    networks: dict[str, Network] = field(default_factory=dict)
    pfs: tuple[Pf, ...] = ()
    bridges: tuple[Bridge, ...] = ()
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
    vhost_net: bool = False
    """Whether the standby NIC can run on vhost-net, so that plugging devices does not stall it."""
    iommu: bool = False
    codecs: tuple[str, ...] = ()
    """What a gateway of this host can compress with."""
    connections: int | None = None
    """How many the kernel tracks at the moment; None where it has no connection tracking loaded."""
    keepalive_off: bool | None = None
    """Whether libvirt's keepalive leaves migrations' connections alone (qemu.conf); None where it cannot be read."""

    def vf(self, address: str) -> Vf | None:
        """The VF at a PCI address, if this host has it."""
        return next((vf for pf in self.pfs for vf in pf.vfs if vf.address == address), None)

    def network_of(self, pf: str) -> str | None:
        """The name of the physical network that a PF is on."""
        return next((name for name, network in self.networks.items() if network.pf == pf), None)

    def guest(self, name: str) -> Guest | None:
        return next((guest for guest in self.guests if guest.name == name), None)
