"""What the fake fleet consists of: hosts with VFs, guests with devices, and what a guest has chosen inside."""

from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from msgspec import structs

from vferry.host.claims import Claims
from vferry.host.forwarding import parked
from vferry.model.compression import Codec
from vferry.model.connections import Connection, PortConnection
from vferry.model.definition import pci_address
from vferry.model.guest import GuestState
from vferry.model.host import NO_MAC, WIPED, Attachment, VfSettings
from vferry.model.ovn import LogicalPort
from vferry.model.relay import RelayPort
from vferry.plan.plan import GuestSide, Standby

PF = "pf0"
BRIDGE = "br0"
NETWORK = "lan"
MDEV_TYPE, MDEV_PARENT = "sample-1", "sample"
DRIVER = "sample_vfio_pci"
"""To which VFs are bound that QEMU migrates."""

ON_BRIDGE = Standby(on=Attachment(device=BRIDGE), uplink=PF)
"""The usual standby path."""

VF = "vf"
STANDBY = "standby"


class MemoryClaims(Claims):
    """The agent's own claims, without their files."""

    def __init__(self, slots: int) -> None:
        self.directory = Path("/nowhere")
        self.slots = slots
        self._records = {}

    def _store(self, record: object) -> None:
        operation = record.claim.operation  # type: ignore[attr-defined]
        self._records[operation] = record  # type: ignore[assignment]

    def _forget_oldest(self) -> None:
        pass


@dataclass
class Device:
    """A NIC of a guest: where `address` is set, a VF, or on one with `macvtap` or by the `socket` that a relay joins to
    it; else a virtio NIC on a standby path, or on the relay's switch by its `socket`.

    `bridge` is what it is on there, which may be an interface.
    """

    alias: str
    mac: str
    address: str | None = None
    macvtap: bool = False
    socket: str | None = None
    bridge: str | None = None
    queues: int = 1
    """What a virtio NIC has of them."""
    managed: bool = False
    """A libvirt interface: libvirt takes MAC and VLAN back from the VF when it is unplugged."""
    knows_mac: bool = True
    """Whether the guest receives on it what is sent to the MAC; False for a VF that came with one of its own."""

    @property
    def passed_through(self) -> bool:
        return self.address is not None and not self.macvtap and self.socket is None

    @property
    def kind(self) -> str:
        """Which of two NICs of one MAC it is in the guest: what is on the relay is on virtio there."""
        return STANDBY if self.address is None or self.socket is not None else VF


@dataclass
class Inside:
    """A guest's memory: its choice of NIC by MAC, and what it has written down. It moves with the guest."""

    side: GuestSide
    chosen: dict[str, str | None] = field(default_factory=dict)
    saved: set[str] = field(default_factory=set)
    manager: str | None = None
    quiet: set[str] = field(default_factory=set)
    """The MACs for which its manager was told to keep quiet."""
    listening: set[str] = field(default_factory=set)
    """The MACs of pairs that take what their virtio NIC receives although they have a VF."""
    patient: set[str] = field(default_factory=set)
    """The MACs whose bond waits longer for its slaves than the guest has told it to."""
    bonds: set[str] = field(default_factory=set)
    """The MACs for which vferry has made a bond in it."""


@dataclass
class Machine:
    """A guest's QEMU on one host."""

    guest: str
    inside: Inside
    devices: dict[str, Device]
    mdevs: frozenset[str] = frozenset()
    """Its mediated devices."""
    state: GuestState = GuestState.RUNNING
    reason: str | None = None
    run: int = 1
    """Another one each time that it is started."""
    squeezed: bool = False
    """Whether its balloon holds memory of its."""

    def nic(self, mac: str, kind: str) -> Device | None:
        """Its VF, or its standby NIC, with a MAC."""
        return next((nic for nic in self.devices.values() if nic.mac == mac and nic.kind == kind), None)


@dataclass
class Function:
    index: int
    address: str
    settings: VfSettings
    interface: str | None = None
    driver: str | None = DRIVER


@dataclass
class Job:
    """A migration that leaves a host. Times are the loop's."""

    operation: str
    guest: str
    target: str
    persistent_xml: str
    vfs: dict[str, str]
    """Those that QEMU migrates, and what they become."""
    started: float
    attached: dict[str, Attachment] = field(default_factory=dict)
    state: str = "active"
    begun: bool = False
    """libvirt is at it."""
    paused: float | None = None
    ended: float | None = None
    error: str | None = None
    bandwidth: int | None = None
    downtime_ms: int = 300
    passes: int = 2
    left: int = 1 << 19
    held: bool = False
    """Its wire is lost in the pause, and the sending gateway keeps that from libvirt."""


@dataclass
class Gateway:
    role: str
    peer: str
    token: str
    codec: Codec = Codec.NONE


@dataclass
class HostState:
    name: str
    functions: dict[str, Function]
    claims: MemoryClaims
    standby: Standby = ON_BRIDGE
    forwarding: set[str] = field(default_factory=set)
    expected: dict[str, str] = field(default_factory=dict)
    """The guests that bring MACs for `forwarding` with them, by these."""
    arriving: dict[int, tuple[str, str]] = field(default_factory=dict)
    """The guests, with their MACs, that VFs wait for, by their indices."""
    hidden: dict[int, str] = field(default_factory=dict)
    """The MACs that VFs are kept from, by their indices, until their guests run."""
    ports: dict[str, RelayPort] = field(default_factory=dict)
    """What its relay joins, by MAC."""
    relay_uplink: str | None = None
    """The VF of its relay's bridge, where that is a switched one."""
    held: set[str] = field(default_factory=set)
    """The MACs that this bridge holds at their guests' ports."""
    bindings: dict[str, LogicalPort] = field(default_factory=dict)
    """What OVN's northbound database has of ports."""
    unsaid: dict[str, set[str]] = field(default_factory=dict)
    """What is announced of a guest as soon as it runs here."""
    machines: dict[str, Machine] = field(default_factory=dict)
    definitions: dict[str, str] = field(default_factory=dict)
    gateways: dict[str, Gateway] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    mdevs: set[str] = field(default_factory=set)
    """The mediated devices that it has made."""
    announced: set[str] = field(default_factory=set)
    """The MACs of running guests that it has announced."""
    connections: dict[Connection, int | None] | None = None
    """What it tracks, and for how long what was told of it is kept; None where it tracks nothing."""
    port_connections: set[PortConnection] = field(default_factory=set)
    """What its switch tracks of ports of OVN's."""
    to_ask: dict[str, set[PortConnection]] = field(default_factory=dict)
    """What guests are asked for as soon as they run here."""
    down_until: float = 0.0
    """Its agent does not answer until then."""
    dead: bool = False

    def function(self, index: int) -> Function:
        return next(function for function in self.functions.values() if function.index == index)

    def passes(self, mac: str) -> bool:
        """Whether frames for a MAC reach the standby path; a macvtap has the kernel see to that while it is up."""
        up = (each for each in self.machines.values() if each.state is GuestState.RUNNING)
        nics = (nic for machine in up for nic in machine.devices.values() if nic.address is None)
        return mac in self.forwarding or (not self.standby.on.bridged and any(nic.mac == mac for nic in nics))

    def owner_of(self, mac: str) -> Function | None:
        """The VF whose filter has a MAC."""
        return next((one for one in self.functions.values() if one.settings.mac == mac), None)

    def user_of(self, address: str) -> str | None:
        """The guest that has a VF, running or only defined."""
        for machine in self.machines.values():
            if any(device.address == address for device in machine.devices.values()):
                return machine.guest
        for port in self.ports.values():
            if port.vf and port.vf.address == address:
                return port.guest
        names = {address, self.functions[address].interface} - {None}
        return next(
            (name for name, xml in self.definitions.items() if names & (vfs_of(xml) | interfaces_of(xml))), None
        )

    def go_on(self, guest: str) -> None:
        """A guest runs here from now on."""
        machine = self.machines[guest]
        machine.state, machine.reason = GuestState.RUNNING, None
        for mac in [mac for mac, whose in self.expected.items() if whose == guest]:
            del self.expected[mac]
            self.forwarding.add(mac)
        for index, (_, mac) in [each for each in self.arriving.items() if each[1][0] == guest]:
            del self.arriving[index]
            function = self.function(index)
            function.settings = structs.replace(function.settings, mac=mac)
        for index in [
            each for each, mac in self.hidden.items() if any(nic.mac == mac for nic in machine.devices.values())
        ]:
            self.show(index, self.hidden.pop(index))
        self.announced |= self.unsaid.pop(guest, set())
        self.port_connections |= self.to_ask.pop(guest, set())

    def show(self, index: int, mac: str) -> bool:
        """Gives a VF the MAC that it was kept from, if it was; says whether."""
        function = self.function(index)
        if function.settings.mac != parked(mac):
            return False
        function.settings = structs.replace(function.settings, mac=mac)
        return True

    def end(self, guest: str) -> None:
        """A guest's QEMU ends, and libvirt takes its MAC from the VFs that its macvtaps are on."""
        machine = self.machines.pop(guest, None)
        for device in machine.devices.values() if machine else ():
            if device.macvtap and device.address is not None:
                function = self.functions[device.address]
                function.settings = structs.replace(function.settings, mac=NO_MAC)


def make_host(
    name: str, *, vfs: int = 4, slots: int = 2, with_interface: tuple[int, ...] = (), standby: Standby = ON_BRIDGE
) -> HostState:
    """`with_interface`: the indices of the VFs that a NIC driver has."""
    functions = [
        Function(at, f"0000:01:10.{2 * at:x}", fresh_settings(), f"{name}v{at}" if at in with_interface else None)
        for at in range(vfs)
    ]
    return HostState(name, {one.address: one for one in functions}, MemoryClaims(slots), standby)


def fresh_settings() -> VfSettings:
    """A VF that nobody has, as rtnetlink shows one of igb's, which can set no least rate and no link state."""
    return WIPED


def vfs_of(xml: str) -> set[str]:
    """The PCI addresses on the host that a definition names."""
    devices = ET.fromstring(xml).find("devices")  # noqa: S314 - our own
    assert devices is not None
    sources = [*devices.findall("interface[@type='hostdev']/source"), *devices.findall("hostdev/source")]
    addresses = (address for source in sources for address in source.findall("address"))
    return {found for address in addresses if (found := pci_address(address)) is not None}


def interfaces_of(xml: str) -> set[str]:
    """The interfaces of the host that a definition puts macvtaps on."""
    sources = ET.fromstring(xml).iterfind("devices/interface[@type='direct']/source")  # noqa: S314 - our own
    return {source.get("dev", "") for source in sources}


def name_of(xml: str) -> str:
    name = ET.fromstring(xml).findtext("name")  # noqa: S314 - our own
    assert name
    return name
