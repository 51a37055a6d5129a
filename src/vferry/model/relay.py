"""The relay of a host: VFs that a user-space switch drives for guests, and what a host has to make one of."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct, field

from vferry.model.ovn import LogicalName

PciAddress = Annotated[str, Meta(pattern=r"^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\Z")]
PortName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,14}\Z")]
Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{0,40}\Z")]
ChainName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}\Z")]
Ipv4 = Annotated[str, Meta(pattern=r"^((25[0-5]|2[0-4]\d|1?\d?\d)(\.(?!\Z)|\Z)){4}")]
Interface = Annotated[str, Meta(pattern=r"^[^/\s]{1,15}\Z")]
Value = Annotated[str, Meta(max_length=500)]
Number = Annotated[int, Meta(ge=0, le=1 << 20)]
Queues = Annotated[int, Meta(ge=1, le=256)]
Mac = Annotated[str, Meta(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}\Z")]


SOCKETS = "/run/vferry-relay"
"""The directory that an agent keeps for the sockets of guests on its relay; their definitions may name others."""


class RelayKind(StrEnum):
    """What becomes of a guest's frames."""

    DIRECT = "direct"
    """One VF is joined to one guest NIC; what else there is to do is the NIC's business."""
    SWITCHED = "switched"
    """Guests' NICs are ports of a switch in user space, whose uplinks are VFs."""


class RelayState(StrEnum):
    """How far a relay is. What is neither may be gone on with, or taken back."""

    ENABLING = "enabling"
    ENABLED = "enabled"
    DISABLING = "disabling"


class HugePages(Struct, frozen=True, kw_only=True):
    """Huge pages of one size on one NUMA node: how many there are to be, and how many there were before."""

    node: Number
    size_kib: Number
    count: Number
    before: Number = 0

    @property
    def added_mib(self) -> int:
        """What they take from the host."""
        return max(0, self.count - self.before) * self.size_kib >> 10


class RelayVf(Struct, frozen=True, kw_only=True):
    """A VF that the relay drives with `bound`, and what it was before: its driver, and two of its settings."""

    pf: Interface
    index: Number
    address: PciAddress
    bound: Word = "vfio-pci"
    driver: Word | None = None
    trust: bool | None = None
    spoof_check: bool | None = None


class RelayUplink(Struct, frozen=True, kw_only=True):
    """A VF as a port of the switch."""

    name: PortName
    address: PciAddress


class RelayBridge(Struct, frozen=True, kw_only=True):
    """A bridge of the switched relay, for one physical network; more than one uplink is a bond."""

    name: PortName
    uplinks: Annotated[tuple[RelayUplink, ...], Meta(min_length=1, max_length=16)]
    mtu: Annotated[int, Meta(ge=576, le=65535)] = 1500


class RelayGateway(Struct, frozen=True, kw_only=True):
    """Where a VLAN of a switched relay's bridge goes beside its uplinks: by GRE, to a gateway's address.

    By one of two it is told from others there: GRE's key, or a label of MPLS in GRE. What goes is Ethernet; or IPv4,
    where there is an address by which guests know the gateway.
    """

    bridge: PortName
    vlan: Annotated[int, Meta(ge=1, le=4094)]
    remote: Ipv4
    """The gateway's IPv4 address."""
    key: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)] | None = None
    label: Annotated[int, Meta(ge=16, lt=1 << 20)] | None = None
    address: Ipv4 | None = None
    """The gateway's among the guests: what they send to it goes there, without Ethernet."""

    @property
    def by_flows(self) -> bool:
        """Whether it takes more than a port: a label, or another header."""
        return self.label is not None or self.address is not None

    @property
    def port(self) -> str:
        """The port of the bridge by which it leaves; a name of its own for each VLAN of each bridge."""
        return f"{self.bridge[:9]}-t{self.vlan}"

    @property
    def described(self) -> str:
        """Where the VLAN goes, in a few words."""
        how = f"GRE, key {self.key}" if self.label is None else f"MPLS in GRE, label {self.label}"
        what = f", IPv4 by {self.address}" if self.address else ""
        return f"VLAN {self.vlan} of {self.bridge} to {self.remote} by {how}{what}"


class ChainPlace(Struct, frozen=True, kw_only=True):
    """A NIC's place in a service chain: its port is in a VLAN of the chain's for as long."""

    name: ChainName
    serves: bool
    """Whether it is a NIC of a service's, or else of a guest whose frames are led through."""
    within: bool
    """Whether the VLAN that its port is in is of the chain alone; the last service goes out to the tenant's."""
    vlan: Annotated[int, Meta(ge=0, le=4094)]
    """The VLAN of its own, which its port is in again without the chain."""
    behind: Annotated[tuple[Mac, ...], Meta(max_length=1024)] = ()
    """Of a service's NIC away from the guests: whose frames come out of it."""


class SwitchPlace(Struct, frozen=True, kw_only=True):
    """A guest's place on a switched relay: the bridge, and what its port there does to the guest's frames."""

    bridge: PortName
    vlan: Annotated[int, Meta(ge=0, le=4094)] = 0
    """What the guest sends untagged is in it; 0 lets all pass as they are tagged."""
    chain: ChainPlace | None = None
    """The service chain that it is in, and goes along with."""
    max_tx_rate: Annotated[int, Meta(ge=0, le=4_000_000)] = 0
    """What the guest may send, in Mbit/s; 0 is unlimited."""
    logical_port: LogicalName | None = None
    """OVN's, which is bound there: the bridge is the host's integration bridge then, and all else is OVN's to do."""
    network: Annotated[str, Meta(max_length=255)] | None = None
    """With one of OVN's: the physical network that it was on before, and is again once it is off the relay."""


class RelayPort(Struct, frozen=True, kw_only=True):
    """A guest's NIC on a relay: its MAC, the socket that its QEMU serves, and what it is joined to, one of two."""

    guest: Annotated[str, Meta(min_length=1, max_length=255)]
    mac: Mac
    socket: Annotated[str, Meta(pattern=r"^/[\x21-\x7e]{1,100}\Z")]
    vf: RelayVf | None = None
    """Its own VF, on a direct relay."""
    switch: SwitchPlace | None = None
    """Its place on a switched one."""
    mtu: Annotated[int, Meta(ge=576, le=65535)] = 1500
    queues: Queues = 1
    """Of the NIC."""

    @property
    def joined_to(self) -> str:
        """What it is joined to, in a few words."""
        if self.vf is not None:
            return f"VF {self.vf.index} of {self.vf.pf}"
        if self.switch is None:
            return "nothing"
        vlan, logical, chain = self.switch.vlan, self.switch.logical_port, self.switch.chain
        said = f"bridge {self.switch.bridge}{f', VLAN {vlan}' if vlan else ''}{f', as {logical}' if logical else ''}"
        return f"{said} of chain {chain.name}" if chain else said


class Relay(Struct, frozen=True, kw_only=True):
    """All that a relay is, and what it takes to undo it. `operation` holds the claim on its VFs."""

    operation: Annotated[str, Meta(max_length=128)]
    state: RelayState
    kind: RelayKind
    uplinks: Annotated[tuple[Interface, ...], Meta(min_length=1, max_length=16)]
    """The PFs whose VFs it drives."""
    cores: Annotated[tuple[Number, ...], Meta(max_length=1024)]
    """The CPUs that do nothing but forward."""
    pages: Annotated[tuple[HugePages, ...], Meta(max_length=64)] = ()
    vfs: Annotated[tuple[RelayVf, ...], Meta(max_length=1024)] = ()
    bridges: Annotated[tuple[RelayBridge, ...], Meta(max_length=16)] = ()
    gateways: Annotated[tuple[RelayGateway, ...], Meta(max_length=4094)] = ()
    """Where VLANs of its bridges go beside their uplinks."""
    settings: Annotated[dict[Word, Value], Meta(max_length=32)] = field(default_factory=dict)
    """What it has set of Open vSwitch (`other_config`); what the operator had set is not among it."""
    ports: Annotated[tuple[RelayPort, ...], Meta(max_length=1024)] = ()
    """The guests' NICs that are on it, as the agent shows them: they come and go by themselves."""

    @property
    def switched(self) -> bool:
        return self.kind is RelayKind.SWITCHED

    @property
    def addresses(self) -> tuple[str, ...]:
        """The VFs that it has for all guests, by their PCI addresses."""
        return tuple(vf.address for vf in self.vfs)

    def port(self, mac: str) -> RelayPort | None:
        return next((port for port in self.ports if port.mac == mac), None)

    def bridge(self, name: str) -> RelayBridge | None:
        """One of a switched relay's bridges."""
        return next((bridge for bridge in self.bridges if bridge.name == name), None)

    def gateway(self, bridge: str, vlan: int) -> RelayGateway | None:
        """Where a VLAN of a bridge goes beside its uplinks."""
        return next((each for each in self.gateways if (each.bridge, each.vlan) == (bridge, vlan)), None)

    @property
    def users(self) -> dict[str, str]:
        """The guests whose NICs are joined to VFs of their own, by the VFs' PCI addresses."""
        return {port.vf.address: port.guest for port in self.ports if port.vf is not None}


class PagePool(Struct, frozen=True, kw_only=True):
    """A NUMA node's huge pages of one size."""

    size_kib: int
    total: int = 0
    free: int = 0


class NumaNode(Struct, frozen=True, kw_only=True):
    """A NUMA node: its CPUs, what is free of its memory in bytes, and its huge pages."""

    number: int
    cpus: tuple[int, ...] = ()
    memory_free: int = 0
    pools: tuple[PagePool, ...] = ()

    def pool(self, size_kib: int) -> PagePool | None:
        return next((pool for pool in self.pools if pool.size_kib == size_kib), None)


class SwitchAbilities(Struct, frozen=True, kw_only=True):
    """This host's Open vSwitch, as far as a relay is concerned."""

    version: str | None = None
    dpdk_version: str | None = None
    """None where it is built without DPDK, or has not said so yet."""
    dpdk_started: bool = False
    answers: bool = True
    """Whether ovs-vswitchd does: its database outlives it, with all that it has written there."""
    settings: dict[str, str] = field(default_factory=dict)
    """Its `other_config`."""

    @property
    def offloads(self) -> bool:
        """Whether it is to have NICs do what they can of its flows (`hw-offload`), in the kernel or with DPDK."""
        return self.settings.get("hw-offload", "").lower() == "true"

    @property
    def release(self) -> tuple[int, int]:
        """Its version as numbers; (0, 0) where it says none."""
        words = (self.version or "").split(".")
        if len(words) < 2 or not (words[0].isdigit() and words[1].isdigit()):
            return 0, 0
        return int(words[0]), int(words[1])


class RelayGround(Struct, frozen=True, kw_only=True):
    """What a host has that a relay needs."""

    nodes: tuple[NumaNode, ...] = ()
    pf_nodes: dict[str, int] = field(default_factory=dict)
    """The NUMA node of each PF."""
    isolated: tuple[int, ...] = ()
    """CPUs that the kernel's scheduler leaves alone (`isolcpus`)."""
    siblings: tuple[tuple[int, ...], ...] = ()
    """The CPUs that are threads of one core, where a core has several."""
    vfio: bool = False
    """Whether the driver vfio-pci is loaded."""
    library: bool = False
    """Whether the agent finds Open vSwitch's Python binding."""
    switch: SwitchAbilities | None = None
    """None where no Open vSwitch answers."""

    def node(self, number: int) -> NumaNode | None:
        return next((node for node in self.nodes if node.number == number), None)


class PortCounters(Struct, frozen=True, kw_only=True):
    """A port of the relay as Open vSwitch counts it, since the port was made."""

    name: str
    bridge: str
    type: str = ""
    """``dpdk`` for a VF, ``dpdkvhostuserclient`` for a guest's NIC."""
    guest: str = ""
    mac: str = ""
    """Whose it is; nobody's for an uplink of a switched relay, and for a port that vferry has not made."""
    up: bool | None = None
    error: str = ""
    statistics: dict[str, int] = field(default_factory=dict)

    def count(self, name: str) -> int:
        return self.statistics.get(name, 0)

    @property
    def drops(self) -> dict[str, int]:
        """What was not passed on, by its reason."""
        found = {key: value for key, value in self.statistics.items() if value and ("drop" in key or "error" in key)}
        return dict(sorted(found.items()))


class RelayCpu(Struct, frozen=True, kw_only=True):
    """A CPU that forwards, as counted since Open vSwitch was started: packets, and cycles with and without any."""

    number: int
    node: int = 0
    packets: int = 0
    idle_cycles: int = 0
    busy_cycles: int = 0

    def load(self, since: "RelayCpu | None" = None) -> float | None:
        """Which share of its cycles went to packets, from 0 to 1; None where it has counted none."""
        busy = self.busy_cycles - (since.busy_cycles if since else 0)
        cycles = busy + self.idle_cycles - (since.idle_cycles if since else 0)
        return busy / cycles if cycles > 0 and busy >= 0 else None


class RelayView(Struct, frozen=True, kw_only=True):
    """A relay as it works at the moment. `relay` is None where there is none."""

    relay: Relay | None = None
    dpdk_started: bool = False
    ports: tuple[PortCounters, ...] = ()
    cpus: tuple[RelayCpu, ...] = ()
    connections: int | None = None
    """How many the switch follows (conntrack in user space)."""
    silence: str = ""
    """Why Open vSwitch says nothing of it, or nothing new."""
    read_at_s: float = 0.0
    """By a clock of the host that only goes forward: rates are between two of these."""
    counted_every_s: float = 5.0
    """How often Open vSwitch writes the ports' counters down."""
