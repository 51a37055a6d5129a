"""What a migration will do, as a value: made once from what the hosts say, journaled, printed, carried out."""

from enum import StrEnum

from msgspec import Struct

from vferry.model.compression import Codec
from vferry.model.guest import StateSize, VfRef
from vferry.model.host import Attachment, VfSettings
from vferry.model.ovn import LogicalPort
from vferry.model.relay import RelayPort
from vferry.plan.schedule import Schedule, Throttle, pauses


class NetworkMode(StrEnum):
    """How the guest's traffic gets from the source's VF to the destination's."""

    VFIO = "vfio"
    SWITCH = "switch"
    FAILOVER = "failover"
    DETACH = "detach"
    MACVTAP = "macvtap"
    RELAY = "relay"
    VIRTIO = "virtio"


class GuestSide(StrEnum):
    """Who chooses, inside the guest, between the VF and the standby NIC."""

    BOND = "bond"
    """The guest's own bond, told by its agent which NIC is the active one."""
    ADDRESSES = "addresses"
    """Addresses and routes are moved between the NICs through the guest's agent."""
    FAILOVER = "failover"
    """The guest's net_failover driver: the VF as soon as it is there, else the virtio NIC that it is teamed with."""
    TEMPORARY_BOND = "temporary-bond"
    """A bond that its agent makes for the migration, and takes apart after it."""
    HOTPLUG = "hotplug"
    """The guest's own reaction to a NIC that comes and one that goes; it is interrupted meanwhile."""
    NOBODY = "nobody"
    """There is nothing to choose: it has one and the same NIC all the time."""


class Standby(Struct, frozen=True, kw_only=True):
    """A standby NIC's way to the network on one host: what it is `on`, and the PF or bond that leads out from there."""

    on: Attachment
    uplink: str

    @property
    def filtered(self) -> str | None:
        """Whose filter vferry tells to pass the MAC: a macvtap has the kernel do that itself."""
        return self.uplink if self.on.bridged else None


class VfMove(Struct, frozen=True, kw_only=True):
    """One NIC of the guest on its way from a VF of the source to a VF of the destination."""

    mac: str
    mode: NetworkMode
    reason: str
    """Why this mode."""
    network: str
    """The physical network that both VFs are on."""
    guest_side: GuestSide
    source: VfRef
    source_alias: str
    """The VF's device in the guest at the source."""
    source_settings: VfSettings
    source_wiped: VfSettings
    """What the source's VF is given back with."""
    source_standby: Standby
    destination: VfRef
    destination_before: VfSettings
    destination_standby: Standby
    standby_alias: str
    standby_stays: bool
    """Whether the standby NIC is the guest's own; else vferry plugs it for the migration and takes it away."""
    mtu: int = 1500
    acpi_index: int | None = None
    """That of the guest's VF, which names it there."""
    relay_port: RelayPort | None = None
    """What joins it to the destination's VF, in mode `relay`."""
    hidden: bool = False
    """Whether its MAC is kept from the destination's VF until the guest runs there, although libvirt sets it before."""
    contested: bool = False
    """Whether something in the guest fights two NICs of one MAC, and is kept quiet for the migration."""

    @property
    def plugged(self) -> bool:
        """Whether the guest loses a VF for the migration and is given another one after it."""
        return self.mode in (NetworkMode.SWITCH, NetworkMode.FAILOVER, NetworkMode.DETACH)

    @property
    def stands_by(self) -> bool:
        """Whether another NIC carries the traffic while there is no VF."""
        if self.mode is not NetworkMode.DETACH:
            return self.plugged
        bonded = self.guest_side in (GuestSide.BOND, GuestSide.TEMPORARY_BOND)
        return bonded or (self.standby_stays and self.guest_side is GuestSide.HOTPLUG)

    @property
    def plugs_standby(self) -> bool:
        """Whether vferry plugs the standby NIC, while the guest still has the VF."""
        makes_way = self.mode is NetworkMode.SWITCH or self.guest_side is GuestSide.TEMPORARY_BOND
        return makes_way and not self.standby_stays

    @property
    def dark(self) -> bool:
        """Whether nothing carries the traffic from before the copy until after it."""
        return self.plugged and not self.stands_by

    @property
    def standby_mtu(self) -> int | None:
        """What a standby NIC tells the guest of its MTU; it is the same on both hosts, and nothing on a macvtap."""
        bridged = self.source_standby.on.bridged and self.destination_standby.on.bridged
        return self.mtu if bridged else None

    @property
    def vf_alias(self) -> str:
        """The alias under which vferry plugs a VF of this NIC, on either host."""
        return f"ua-vferry-vf-{self.mac.replace(':', '')}"

    @property
    def vlan(self) -> int:
        """The VLAN that the VF is in, and its standby NIC with it; 0 for none."""
        return self.source_settings.vlan or 0

    @property
    def carried(self) -> VfSettings:
        """What the destination's VF gets before the copy: everything but the MAC, which would take the traffic."""
        settings = self.source_settings
        return VfSettings(
            vlan=settings.vlan,
            qos=settings.qos,
            trust=settings.trust,
            spoof_check=settings.spoof_check,
            link_state=settings.link_state,
            min_tx_rate=settings.min_tx_rate,
            max_tx_rate=settings.max_tx_rate,
        )


class Rebinding(Struct, frozen=True, kw_only=True):
    """Where OVN may bind the port of a guest on its way: as it was, at both hosts, and at the destination."""

    before: LogicalPort
    both: LogicalPort
    after: LogicalPort


class PortMove(Struct, frozen=True, kw_only=True):
    """One NIC of the guest on its way from the source's switched relay to the destination's: it is on no VF of its own.

    `uplink` is the PF by which the destination's bridge reaches the `network`; None where both are OVN's to know.
    """

    mac: str
    reason: str
    """Why this mode."""
    network: str | None
    source: RelayPort
    destination: RelayPort
    uplink: str | None
    rebinding: Rebinding | None = None
    """Where it is a port of OVN's."""
    mode: NetworkMode = NetworkMode.RELAY

    @property
    def vlan(self) -> int:
        """The VLAN that its port is in; 0 for none."""
        return self.destination.switch.vlan if self.destination.switch else 0


class DeviceMove(Struct, frozen=True, kw_only=True):
    """A mediated device that QEMU migrates: the destination gets one with the same UUID.

    The parents are the devices of the hosts that have it. `exists`: whether it is there already, made by others.
    """

    uuid: str
    type: str
    source_parent: str
    destination_parent: str
    exists: bool = False


class Forwarded(Struct, frozen=True, kw_only=True):
    """A NIC that stands by for the migration, or is on a bridge always, and whose filters are told to pass its MAC.

    They are those of the PFs or bonds behind the bridges, and None where a macvtap sees to that.
    """

    mac: str
    source_uplink: str | None
    destination_uplink: str | None


class Announced(Struct, frozen=True, kw_only=True):
    """A NIC that the destination announces once the guest has resumed there, and by which interface it does so.

    By none where its port is OVN's, which takes an announcement as the guest's own, and tells whom it must.
    """

    mac: str
    interface: str | None
    vlan: int = 0
    addresses: tuple[str, ...] = ()
    """Those that the guest's agent has told of, and that the NIC has all the time."""
    uplink: str | None = None
    """Where the guest resumes on a VF: the port of the host's bridge behind which it then is; else its NIC's own is."""
    port: str | None = None
    """Whose MAC is behind a service: the service's NIC, by whose port it is announced."""


class TransferPlan(Struct, frozen=True, kw_only=True):
    """How the memory goes: libvirt's plain stream (0 channels) or multifd, through the gateways, or `direct`."""

    policy: str = "plain"
    compression: str | None = None
    """QEMU's own, by libvirt's name, which the gateways then leave as it is."""
    cache: int = 0
    """MiB for XBZRLE's copies of pages at the source: a power of two, or 0."""
    parallel: int = 0
    codec: Codec = Codec.NONE
    streams: int = 1
    """Over how many streams the gateways spread each connection that they compress."""
    delta_memory: int = 0
    """MiB for copies of pages at each gateway, so that a page sent again goes as its difference."""
    resident: bool = False
    """Whether pages are left out that guests at the destination have, too; what is copied there of these takes as much
    memory again."""
    bandwidth: int | None = None
    """Bytes per second of QEMU's stream, before it is compressed; None is unlimited."""
    downtime_ms: int = 300
    """How long QEMU may pause the guest for the last of its memory."""
    when_stalled: Schedule = ()
    """What may be done when the copy stalls, in order."""
    deadline_s: float = 600.0
    reclaim_free: bool = False
    """Whether the guest's balloon takes, and gives back, what it has free before the copy."""
    direct: bool = False
    """Whether QEMU sends to the destination's by itself, over TLS, where the gateways would not compress: in a wish
    that it may, in a plan that it does."""

    @property
    def most_downtime_ms(self) -> int:
        """To how much `downtime_ms` may be raised when the copy stalls."""
        return max((self.downtime_ms, *pauses(self.when_stalled)))

    @property
    def throttle(self) -> bool:
        """Whether QEMU may slow the guest's processors down when it writes faster than can be copied."""
        return Throttle() in self.when_stalled


class Plan(Struct, frozen=True, kw_only=True):
    """All that the steps are built from. Nothing in it is a secret."""

    operation: str
    guest: str
    uuid: str
    source: str
    destination: str
    reason: str
    """Why these modes."""
    moves: tuple[VfMove, ...]
    plain_macs: tuple[str, ...]
    """The MACs of NICs that migrate by themselves, over a bridge."""
    ports: tuple[PortMove, ...] = ()
    devices: tuple[DeviceMove, ...] = ()
    device_state: StateSize | None = None
    """What is known before of the state that QEMU sends of these, and of VFs that it migrates."""
    forwarded: tuple[Forwarded, ...] = ()
    announced: tuple[Announced, ...] = ()
    routes_ipv6: bool = False
    tracked: tuple[str, ...] = ()
    """The guest's addresses whose connections both hosts track, and that go along; none where that does not matter."""
    persistent_xml: str
    """The definition at the destination, naming its VFs."""
    transfer: TransferPlan
    unplug_timeout_s: float = 15.0
    attached: dict[str, Attachment] = {}
    """The virtio NICs, by MAC, that are put on something else at the destination, or on a macvtap there."""
    standby_vhost: bool = True
    """Whether a NIC that is plugged for the migration is on vhost-net, or else in QEMU."""
    notes: tuple[str, ...] = ()

    @property
    def network_mode(self) -> str:
        """The modes of its NICs, each once, with a plus between them; ``virtio`` where all are on bridges.

        Always in the same order: a guest's NICs have another one at the destination.
        """
        found = {move.mode for move in self.moves} | {port.mode for port in self.ports}
        found |= {NetworkMode.MACVTAP} if self.on_macvtaps else set()
        return "+".join(mode.value for mode in NetworkMode if mode in found) or NetworkMode.VIRTIO.value

    @property
    def on_macvtaps(self) -> bool:
        """Whether NICs are on macvtaps that stand by for no VF."""
        standing_by = {move.mac for move in self.moves if move.stands_by}
        return any(not on.bridged for mac, on in self.attached.items() if mac not in standing_by)

    @property
    def rebinds(self) -> bool:
        """Whether OVN is told where the guest's ports are."""
        return bool(self.bound)

    @property
    def bound(self) -> tuple[str, ...]:
        """The MACs of NICs that are ports of OVN's."""
        return tuple(port.mac for port in self.ports if port.rebinding is not None)

    @property
    def rebindings(self) -> tuple[Rebinding, ...]:
        """What OVN is told of these."""
        return tuple(port.rebinding for port in self.ports if port.rebinding is not None)

    @property
    def migrated_vfs(self) -> dict[str, str]:
        """The addresses of the VFs whose state QEMU migrates, and of those that they become."""
        stay = (move for move in self.moves if move.mode is NetworkMode.VFIO)
        return {move.source.address: move.destination.address for move in stay}

    @property
    def source_vfs(self) -> tuple[str, ...]:
        """The addresses of the VFs that the guest leaves."""
        return tuple(move.source.address for move in self.moves)

    @property
    def destination_vfs(self) -> tuple[str, ...]:
        """The addresses of the VFs that it gets."""
        return tuple(move.destination.address for move in self.moves)
