"""What may be asked of an agent: narrow, typed operations that observe, then act, and are safe to repeat.

Each is a value: the client sends it as JSON to ``POST /v1/<tag>``, the agent answers with its reply type or with
a `Problem`. An operation that changes anything runs in a `Session`, whose operation must hold the claim on what
it touches (`ClaimResources` first).
"""

from typing import Annotated, Generic, Protocol, TypeVar

from msgspec import Meta, Struct

from vferry.model.compression import Codec, Compressed, Count, DeltaMib, Streams
from vferry.model.connections import Address, Connection, PortConnection
from vferry.model.guest import Guest, GuestNetwork, StateSize, VfRef
from vferry.model.host import Attachment, Claim, DeviceName, Inventory, VfSettings
from vferry.model.memory import MemoryUse
from vferry.model.ovn import LogicalPort
from vferry.model.relay import Mac, Number, Queues, Relay, RelayBridge, RelayGateway, RelayPort, RelayView, Value, Word

R = TypeVar("R")

SysfsName = Annotated[str, Meta(pattern="^[A-Za-z0-9_:-][A-Za-z0-9_.:-]{0,99}$")]
PciAddress = Annotated[str, Meta(pattern="^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}[.][0-7]$")]


class Operation(Struct, Generic[R], frozen=True, kw_only=True):
    """Asks an agent for something that is answered with an R."""


class Session(Struct, frozen=True, kw_only=True):
    """In whose name a controller calls: the migration's id, and an epoch that fences off an older controller."""

    operation: str
    epoch: int = 1


class Done(Struct, frozen=True, kw_only=True):
    """The answer of an operation that only acts. `changed` is False when it was so already."""

    changed: bool = True
    detail: str = ""


class Host(Protocol):
    """A host as the steps see it: the client in production, a fake in the tests of plans and steps."""

    @property
    def name(self) -> str: ...

    async def call(self, operation: Operation[R], *, timeout_s: float = 30.0) -> R:
        """Asks the agent. Raises `Problem`: the agent's own, or ``host-unreachable`` when it does not answer."""
        ...


# --- looking ---------------------------------------------------------------------------------------------


class TakeInventory(Operation[Inventory], frozen=True, kw_only=True, tag="inventory"):
    """All that planning asks of a host."""


class ShowGuest(Operation[Guest], frozen=True, kw_only=True, tag="guest"):
    """One guest. Problem ``guest-unknown`` where this host does not define it."""

    guest: str


class ReadGuestNetwork(Operation[GuestNetwork], frozen=True, kw_only=True, tag="guest-network"):
    """The guest's network as its own agent shows it, by running `ip` in it: this proves that vferry may.

    Problems: ``guest-agent-silent``, ``guest-exec-forbidden``.
    """

    guest: str


class Latency(Struct, frozen=True, kw_only=True):
    """How long a guest's agent and its disk took to answer, in ms, in the order in which they were asked."""

    agent_ms: tuple[float, ...] = ()
    """Each a guest-ping, as libvirt carries it out."""
    disk_ms: tuple[float, ...] = ()
    """Each the average of the reads that ended within some 100 ms, to 1 ms; the last may be one that waits still."""


class MeasureGuest(Operation[Latency], frozen=True, kw_only=True, tag="guest-latency"):
    """Measures for `seconds` how fast a guest's agent and its first disk answer, also while it has a device plugged.

    Its agent reads 4 KiB of that disk ten times a second. No values of a disk where the guest has none, or no `dd`.
    Problems: ``guest-off``, ``guest-agent-silent``, ``guest-agent-nonsense``, ``guest-exec-forbidden``,
    ``guest-run-timeout``.
    """

    guest: str
    seconds: Annotated[float, Meta(ge=0.1, le=5.0)] = 1.0


class MeasureMemory(Operation[MemoryUse], frozen=True, kw_only=True, tag="guest-memory"):
    """Measures for `seconds` how fast a guest writes to its memory, and what codecs make of some of it.

    Problem ``guest-off``.
    """

    guest: str
    seconds: Annotated[int, Meta(ge=1, le=10)] = 1


MOST_CONNECTIONS = 65_536
MOST_ADDRESSES = 256
MOST_PUT = 2048


class Tracked(Struct, frozen=True, kw_only=True):
    """Connections of a guest in a host's connection tracking; `left_out` are those with NAT, or too many."""

    connections: tuple[Connection, ...] = ()
    left_out: int = 0


class ReadConnections(Operation[Tracked], frozen=True, kw_only=True, tag="connections"):
    """The tracked connections that have one of `addresses` at an end. Problem ``connections-unreadable``."""

    addresses: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=MOST_ADDRESSES)]


class Blockers(Struct, frozen=True, kw_only=True):
    """Why a guest's QEMU would not migrate it as it is now, in QEMU's words; empty when it would.

    `state` is what devices that migrate themselves have of it; None where there are none, or they cannot be asked.
    """

    reasons: tuple[str, ...] = ()
    state: StateSize | None = None


class ReadBlockers(Operation[Blockers], frozen=True, kw_only=True, tag="blockers"):
    """Asks a guest's running QEMU, over its monitor, and the kernel how much state its devices have.

    Not while it migrates: it answers nobody in its pause.

    Problems: ``guest-unknown``, ``guest-off``, ``libvirt-failed``.
    """

    guest: str


class Definition(Struct, frozen=True, kw_only=True):
    """A guest's libvirt XML: as it runs (None when off), and as it will start next time."""

    live: str | None
    persistent: str


class ReadDefinition(Operation[Definition], frozen=True, kw_only=True, tag="definition"):
    guest: str


class Fit(Struct, frozen=True, kw_only=True):
    """Whether a host can take a guest's platform in. `reasons` is empty when it can."""

    reasons: tuple[str, ...] = ()


class CheckFit(Operation[Fit], frozen=True, kw_only=True, tag="fit"):
    """Asks a destination whether it accepts the guest: CPU, machine type, files, networks, what it is bound to."""

    live_xml: str
    persistent_xml: str | None = None
    """With it, the libvirt networks are looked for that the guest's NICs come from at its next start."""
    rewired: tuple[str, ...] = ()
    """The MACs of NICs that need not find their bridge or interface, as they are put on another one."""


class QemuAbilities(Struct, frozen=True, kw_only=True):
    """What a QEMU can do in a migration, by the names of its QMP."""

    capabilities: tuple[str, ...] = ()
    multifd_compression: tuple[str, ...] = ()


class AskQemu(Operation[QemuAbilities], frozen=True, kw_only=True, tag="qemu-abilities"):
    """Asks the emulator that a guest's XML names, as it is on this host.

    Problem ``qemu-silent``, and ``libvirt-failed`` where libvirt knows no such emulator.
    """

    live_xml: str


class DriverAbilities(Struct, frozen=True, kw_only=True):
    """`lacks`: the settings of a VF, by their names in `VfSettings`, that the driver of a PF cannot make."""

    lacks: tuple[str, ...] = ()


class AskDriver(Operation[DriverAbilities], frozen=True, kw_only=True, tag="driver-abilities"):
    """Asks the driver of a PF what it can set of a VF, of none that there is. Problem ``interface-unknown``."""

    pf: DeviceName


# --- claims ----------------------------------------------------------------------------------------------


class ClaimResources(Operation[Claim], frozen=True, kw_only=True, tag="claim"):
    """Reserves a guest, VFs and a migration slot for the session's operation, all or nothing, durably.

    Repeating it with the same operation and a higher epoch takes it over. Problems: ``guest-claimed``,
    ``vf-claimed``, ``vf-in-use``, ``no-slot``, ``stale-controller``.
    """

    guest: str | None = None
    vfs: tuple[str, ...] = ()
    slot: bool = True
    """Without, no slot is taken: a relay lasts."""


class ReleaseClaim(Operation[Done], frozen=True, kw_only=True, tag="release"):
    """Ends the session's claim on this host, with the gateways that it left running.

    Problem ``guest-held``, as of `StopGateway`: the claim stays.
    """


# --- devices of a guest ----------------------------------------------------------------------------------


class PlugStandby(Operation[Done], frozen=True, kw_only=True, tag="plug-standby"):
    """Hot-plugs a virtio NIC with `mac`, on vhost-net or in QEMU, into the running guest only, under `alias`.

    `vlan` is that of its port, untagged towards the guest, and 0 for none: on a bridge of Linux it needs libvirt 11.0
    or later, and a macvtap has none. `mtu` is what the guest is told, which libvirt refuses on a macvtap. `queues` are
    pairs: one to receive and one to send.
    """

    guest: str
    mac: str
    on: Attachment
    alias: str
    mtu: int | None = None
    vlan: Annotated[int, Meta(ge=0, le=4094)] = 0
    vhost: bool = True
    queues: Queues = 1


class PlugRelayed(Operation[Done], frozen=True, kw_only=True, tag="plug-relayed"):
    """Hot-plugs a virtio NIC by vhost-user into the running guest only, under `alias`, which the relay has joined.

    QEMU stands still until the relay is connected to the socket, so that is asked first whether it can be. Problems:
    as of `JoinRelay`, ``relay-not-joined``, ``memory-not-shared``, ``guest-off``. `queues` as of `PlugStandby`.
    """

    guest: str
    mac: Mac
    alias: str
    queues: Queues = 1


class PlugVf(Operation[Done], frozen=True, kw_only=True, tag="plug-vf"):
    """Hot-plugs a VF as a plain host device, so that libvirt leaves the PF's settings alone, under `alias`.

    `teamed_with` is the alias of the persistent NIC of its teaming pair. QEMU keeps to the first alias that it has seen
    in a pair, for as long as the guest runs on a host. `acpi_index` is libvirt's `<acpi index>`, by which the
    guest's udev names the NIC.
    """

    guest: str
    address: str
    alias: str
    teamed_with: str | None = None
    acpi_index: int | None = None


class Unplug(Operation[Done], frozen=True, kw_only=True, tag="unplug"):
    """Asks the guest to give a device back and waits until it is gone.

    Problem ``unplug-refused`` when the guest has not let go within `timeout_s`: the device then stays.
    """

    guest: str
    alias: str
    timeout_s: float = 15.0


class GuestRun(Struct, frozen=True, kw_only=True):
    """How a script in a guest ended. Output is cut at 64 KiB."""

    code: int
    stdout: str = ""
    stderr: str = ""


class RunInGuest(Operation[GuestRun], frozen=True, kw_only=True, tag="guest-run"):
    """Runs a POSIX shell script in the guest through its agent; the script must be safe to repeat."""

    guest: str
    script: str
    timeout_s: float = 15.0


class SetMdev(Operation[Done], frozen=True, kw_only=True, tag="set-mdev"):
    """Makes a guest's mediated device on this host, or removes it, which none that runs may have.

    Problems: ``mdev-in-use``, ``mdev-differs`` (it is of another type), ``mdev-refused`` by the kernel.
    """

    guest: str
    uuid: Annotated[str, Meta(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    kind: SysfsName
    """Its type, by the kernel's name."""
    parent: SysfsName
    """The device of this host that has it."""
    present: bool


# --- the NIC and the host's forwarding -------------------------------------------------------------------


class SetVf(Operation[Done], frozen=True, kw_only=True, tag="set-vf"):
    """Applies settings to a VF through its PF and reads them back. Problem ``vf-setting-refused`` names which.

    With `arriving`, a guest, the MAC among them waits until that runs here; setting the VF anew ends the waiting.
    """

    pf: str
    index: int
    settings: VfSettings
    arriving: str = ""
    only_at: PciAddress | None = None
    """Its PCI address: unchanged where the host has no such VF any more, or another one in its place."""


class HideMac(Operation[Done], frozen=True, kw_only=True, tag="hide-mac"):
    """Keeps what is for a guest's MAC from the VF that its macvtap is on, until the guest goes on here.

    Once libvirt has made the macvtap, and given the VF's interface the MAC for it, the VF gets one that nobody uses,
    and the guest's again as libvirt brings the macvtap up. Setting the VF (`SetVf`) ends that, whatever it sets.
    `hidden` False: the VF gets the guest's MAC now, where it was taken away. Unchanged where the interface has a MAC of
    its own. Problem ``vf-setting-refused``.
    """

    pf: str
    index: int
    mac: Mac
    hidden: bool


class SetForwarding(Operation[Done], frozen=True, kw_only=True, tag="set-forwarding"):
    """Adds a MAC to a PF's unicast filter, or removes it, so that frames for it reach the bridge behind the PF.

    `pf` may be the bond that the PF is in: the kernel has the slaves that receive pass it, also when they change.
    With `arriving`, the guest that is to have it there: it is only tried, and added once that guest runs here, since
    until then its neighbours on this host are to reach it where it is. Removing it ends the waiting as well.
    Problem ``forwarding-refused``.
    """

    pf: str
    mac: str
    present: bool
    arriving: str = ""


class MoveFilter(Operation[Done], frozen=True, kw_only=True, tag="move-filter"):
    """Moves a MAC between a VF's filter and its PF's, or another VF's, back to back, in its driver's order.

    `to_vf` False: the VF's filter gets a MAC that nobody uses, which its driver cannot change, and the PF takes
    this one; True: the PF lets go and the VF takes it. Another VF that lets go gets such a MAC, too.
    """

    pf: str
    index: int
    mac: str
    to_vf: bool
    uplink: str | None
    """Whose filter it is beside the VF's: the PF's, or that of the bond over it. None where a macvtap sees to that."""
    other: VfRef | None = None
    """The VF whose filter it is, in place of an `uplink`'s."""


class Unpark(Operation[Done], frozen=True, kw_only=True, tag="unpark"):
    """Clears the MAC that `MoveFilter` left a VF with, once it is unplugged: the next guest may bring its own.

    Unchanged when the VF has another MAC, or none.
    """

    pf: str
    index: int
    mac: str
    """The guest's MAC, which was moved away."""


class TeachBridge(Operation[Done], frozen=True, kw_only=True, tag="teach-bridge"):
    """Has a bridge of this host know behind which of its ports a guest's MAC is: `uplink`, or else the NIC's own.

    Else it may think otherwise until the guest sends something. At the NIC's own port the MAC is held: frames from it
    that come in by the uplink, sent by the guest's VF or to announce it, change nothing until `uplink` is told, or the
    entry ages; in Open vSwitch it does not age, and ends with the port. At `uplink` it is as if learnt; Open vSwitch
    forgets the MAC instead, and floods its frames, whichever of its bridge's ports that names. Unchanged where that is
    no port of a bridge, or of an Open vSwitch before 2.16.
    Problem ``bridge-refused``.
    """

    guest: str
    mac: str
    uplink: str | None = None


class Announce(Operation[Done], frozen=True, kw_only=True, tag="announce"):
    """Tells the switches outside that a guest's NIC is on this host, by frames that leave through `interface`.

    Without one, they come into the bridge by the guest's own port on the relay, as if it had sent them: of a guest that
    arrives at a port of its own, OVN passes nothing before it has seen a RARP there.

    They are RARP frames from `mac` and, for each of `addresses`, gratuitous ARP or unsolicited neighbour
    advertisements, tagged with `vlan` if it is not 0. Answers after the first time; the others follow by themselves,
    until the MAC is announced anew.
    Problem ``announce-failed``.
    """

    guest: str
    mac: str
    interface: str | None = None
    vlan: int = 0
    port: Mac | None = None
    """Of the guest's NICs the one by whose port they come in, where that is not `mac`: who has that is behind it."""
    addresses: tuple[str, ...] = ()
    router: bool = False
    """Whether the guest forwards IPv6: its neighbours would cease to send by it if that were not said."""


class ExpectGuest(Operation[Done], frozen=True, kw_only=True, tag="expect-guest"):
    """Has NICs announced the moment that a guest runs here, and this host's bridges told of them before that.

    In place of what was expected of it before: with none, nothing is any more.
    """

    guest: str
    announced: tuple[Announce, ...] = ()


class PutOutcome(Struct, frozen=True, kw_only=True):
    """How many connections the kernel has now, how many it refused, and why the first of these."""

    taken: int = 0
    refused: int = 0
    why: str = ""


class PutConnections(Operation[PutOutcome], frozen=True, kw_only=True, tag="put-connections"):
    """Puts connections of a guest into this host's connection tracking, in place of what it has of them.

    One that it knows further on already stays as it is. Windows are not tracked in any of them from then on.
    Problem ``connection-invalid``.
    """

    guest: str
    connections: Annotated[tuple[Connection, ...], Meta(max_length=MOST_PUT)]
    lease_s: Annotated[int, Meta(ge=1, le=3600)] | None = None
    """For how long at most those are known that were not, unless there is traffic; the others keep their time."""


# --- the move itself -------------------------------------------------------------------------------------


class DirectMemory(Struct, frozen=True, kw_only=True):
    """Where QEMU of the destination takes the memory in by itself, and the name that its certificate has."""

    port: int
    name: str


class Receiving(Struct, frozen=True, kw_only=True):
    """Where the receiving gateway listens, and the token that a sender must show. Never logged."""

    address: str
    port: int
    token: str
    direct: DirectMemory | None = None
    """At the same address; None where the memory is the gateway's, too."""


class StartReceiving(Operation[Receiving], frozen=True, kw_only=True, tag="start-receiving"):
    """Starts this host's receiving gateway for the session's operation; `peer` is the source's certified name."""

    peer: str
    delta_memory: DeltaMib = 0
    """MiB for copies of pages, at most."""
    resident: bool = False
    """Whether pages that guests have which run here need not be sent; of these as much may be copied again."""
    direct: bool = False
    """Whether QEMU is to take the memory in by itself, over TLS; the gateway then carries libvirt's connection alone.

    Problem ``no-qemu-tls`` where it cannot.
    """


class StartSending(Operation[Done], frozen=True, kw_only=True, tag="start-sending"):
    """Starts this host's sending gateway towards a `Receiving` one; `peer` is the destination's certified name."""

    peer: str
    address: str
    port: int
    token: str
    codec: Codec = Codec.NONE
    streams: Streams = 1
    """Over how many each connection is spread that is compressed."""
    delta_memory: DeltaMib = 0
    """MiB for copies of pages, at most."""
    direct: DirectMemory | None = None


class GatewayStatistics(Struct, frozen=True, kw_only=True):
    """What a gateway has carried: bytes from and to the wire, CPU seconds, cores in its busiest second."""

    wire_bytes: Count = 0
    cpu_s: float = 0.0
    cpu_peak: float = 0.0
    compressed: Compressed | None = None
    """None where nothing was, or where the gateway ended without a word of it."""


class StopGateway(Operation[GatewayStatistics], frozen=True, kw_only=True, tag="stop-gateway"):
    """Ends the session's gateway on this host and gives its figures; zeros when there is none.

    Problem ``guest-held`` where the guest is paused here for its switchover: libvirt would let it go on.
    """

    resume: bool = False
    """That is wanted: it is certain that the guest does not run at the destination, and never will."""


class ReclaimFree(Operation[Done], frozen=True, kw_only=True, tag="reclaim-free"):
    """Takes by its balloon what a guest has free, and gives it back at once, so that a copy has nothing of it to send.

    The answer's detail is how much, or, unchanged, why nothing.
    """

    guest: str


class ReturnFree(Operation[Done], frozen=True, kw_only=True, tag="return-free"):
    """Gives a guest what the session's `ReclaimFree` took and, being interrupted, did not give back."""

    guest: str


class StartMigration(Operation[Done], frozen=True, kw_only=True, tag="start-migration"):
    """Starts libvirt's peer-to-peer migration of the guest through the session's sending gateway.

    `persistent_xml` becomes the definition at the destination. Returns at once; ask `ReadMigration`.
    Answers unchanged when this operation's migration of the guest is already running.
    """

    guest: str
    persistent_xml: str
    attached: Annotated[dict[str, Attachment], Meta(max_length=64)] = {}
    """By MAC, what virtio NICs are put on at the destination, where it is not called there as it is here."""
    parallel: int = 0
    """How many multifd channels; 0 is a plain stream."""
    bandwidth: int | None = None
    """Bytes per second, of QEMU's stream."""
    downtime_ms: int = 300
    throttle: bool = False
    """QEMU's auto-converge."""
    compression: Annotated[str, Meta(pattern="^[a-z0-9-]{1,20}$")] | None = None
    """QEMU's own, by libvirt's name."""
    cache: Annotated[int, Meta(ge=0)] = 0
    """Bytes for XBZRLE's copies of pages, a power of two; 0 is QEMU's usual 64 MiB."""
    vfs: dict[PciAddress, PciAddress] = {}
    """Those that QEMU migrates itself, and which of the destination's each becomes."""


class Migration(Struct, frozen=True, kw_only=True):
    """How a guest's migration stands, as its source sees it.

    `state` is ``none`` (never started here, or forgotten), ``active``, ``uncertain``, ``completed`` or ``failed``.
    Uncertain: libvirt's connection to the destination is lost while the guest is paused for its switchover. The
    gateway keeps that from libvirt, which would let the guest go on here, though it may run at the destination.
    `Concede` or `StopGateway` ends it. Ages are in seconds before the answer was made, so that two hosts' clocks
    need not agree.
    """

    state: str = "none"
    error: str | None = None
    total_bytes: int = 0
    remaining_bytes: int = 0
    sent_bytes: int = 0
    rate: float = 0.0
    """Bytes per second that QEMU sends, before they are compressed."""
    wire_rate: float | None = None
    """Bytes per second that the gateway put on the wire in the last second that it has told of."""
    ratio: float | None = None
    """Bytes of QEMU's stream for each that the gateway put on the wire so far; None where it compressed none."""
    dirty_rate: float = 0.0
    """Pages per second, of 4 KiB; 0 until QEMU has looked what was written in a pass."""
    rounds: int = 0
    throttle: int = 0
    """By how much QEMU slows the guest's processors down, in percent."""
    downtime_ms: int = 0
    """How long QEMU may pause the guest for its memory now; 0 is not known."""
    expected_pause_ms: float | None = None
    pause_ms: float | None = None
    """How long QEMU kept the guest stopped; known when completed."""
    device_bytes: int | None = None
    """State of VFIO devices that QEMU has sent, known when completed; None where there was none."""
    started_age_s: float | None = None
    paused_age_s: float | None = None
    ended_age_s: float | None = None


class ReadMigration(Operation[Migration], frozen=True, kw_only=True, tag="migration"):
    """How the session's migration of a guest stands.

    One whose connection is lost while the guest runs here can only fail: its gateway is then ended, so that
    libvirt learns of it.
    """

    guest: str


class AbortMigration(Operation[Done], frozen=True, kw_only=True, tag="abort-migration"):
    """Cancels the running migration of the guest; unchanged when there is none.

    So also while libvirt is not at it yet, or does not get at it: who sees it go on asks again.
    """

    guest: str


class LimitMigration(Operation[Done], frozen=True, kw_only=True, tag="limit-migration"):
    """Limits the running migration of the guest to `bandwidth` bytes per second; unchanged when there is none."""

    guest: str
    bandwidth: Annotated[int, Meta(ge=0)]
    """0 is no limit. libvirt counts in MiB/s: less than one is one."""


class LimitHost(Operation[Done], frozen=True, kw_only=True, tag="limit-host"):
    """Limits what all migrations that leave this host send together, those that run at once, and durably.

    It needs no claim: it is no operation's. Problem ``bandwidth-too-small``.
    """

    bandwidth: Annotated[int, Meta(ge=0)] | None
    """Bytes per second; 0 is no limit, None what the agent's configuration says, which holds where nothing is set."""


class StretchPause(Operation[Done], frozen=True, kw_only=True, tag="stretch-pause"):
    """Lets the running migration pause the guest for so long, for the last of its memory, and never for less.

    Unchanged where no copy runs any more.
    """

    guest: str
    downtime_ms: Annotated[int, Meta(ge=1, le=30_000)]
    """Not longer than whoever asks QEMU meanwhile can wait: it answers nobody in the pause."""


class Concede(Operation[Done], frozen=True, kw_only=True, tag="concede"):
    """Ends the paused guest that the session's migration has left here, and the gateway that holds it.

    Only ever asked for when the guest runs at the destination. Unchanged where it is off. Problems:
    ``guest-running``, and ``guest-not-leaving`` where this operation's migration is not why it is here.
    """

    guest: str


class Define(Operation[Done], frozen=True, kw_only=True, tag="define"):
    """Makes `xml` the persistent definition of a guest, whether it runs or not."""

    xml: str


class Undefine(Operation[Done], frozen=True, kw_only=True, tag="undefine"):
    """Removes a guest's persistent definition. Problem ``guest-running`` where it runs: never takes it away."""

    guest: str


class Resume(Operation[Done], frozen=True, kw_only=True, tag="resume"):
    """Lets a paused guest go on. Only ever asked for when it is certain that it runs nowhere else."""

    guest: str


class Destroy(Operation[Done], frozen=True, kw_only=True, tag="destroy-incoming"):
    """Ends the paused remains of an incoming migration. Problem ``guest-running`` where the guest runs."""

    guest: str


# --- the relay -------------------------------------------------------------------------------------------


class KeepRelay(Operation[Done], frozen=True, kw_only=True, tag="keep-relay"):
    """Keeps what a relay is, durably, in place of what was kept: before anything is done, and when it is.

    What it says was before is what takes it back. Problems: ``relay-anothers`` where another operation's is kept, and
    ``relay-in-use`` where it is to be taken back, and a guest is on it.
    """

    relay: Relay


class ForgetRelay(Operation[Done], frozen=True, kw_only=True, tag="forget-relay"):
    """Forgets the relay, once nothing of it is left; another operation's is left alone. Problem ``relay-in-use``."""


class SetHugePages(Operation[Done], frozen=True, kw_only=True, tag="set-huge-pages"):
    """Makes a NUMA node's huge pages of one size so many, in use or not; more are left.

    Problem ``huge-pages-refused`` where there is no memory for so many: then as many are left as there were.
    """

    node: Number
    size_kib: Number
    count: Number
    instead_of: Number | None = None
    """Makes them fewer, where there are just as many as this: else somebody has changed that since.

    Those in use stay until they are given back, which `detail` then says.
    """


class BindVf(Operation[Done], frozen=True, kw_only=True, tag="bind-vf"):
    """Gives a VF to a driver, for as long as the host is up; None leaves it without one.

    Problems: ``vf-unknown``, ``driver-refused``: then it is with the driver that it had.
    """

    address: PciAddress
    driver: Word | None = None
    if_there: bool = False
    """Unchanged where the host has no such VF any more."""


class SetSwitch(Operation[Done], frozen=True, kw_only=True, tag="set-switch"):
    """Sets keys of Open vSwitch's `other_config`, or removes them (None), and waits until it has done so.

    With `start`, it must have started DPDK by then. Problems: ``switch-silent``, ``switch-refused``,
    ``switch-library-missing``, ``dpdk-not-started``.
    """

    settings: Annotated[dict[Word, Value | None], Meta(max_length=32)]
    instead_of: Annotated[dict[Word, Value | None], Meta(max_length=32)] = {}
    """Of these keys, only those that still have this value, or none (None): else somebody has set them since."""
    start: bool = False


class SetRelayBridge(Operation[Done], frozen=True, kw_only=True, tag="set-relay-bridge"):
    """Makes a bridge of the switched relay with its uplinks, or removes it, and looks whether its ports work.

    Problems: as of `SetSwitch`, ``bridge-anothers`` (it is not a relay's), ``bridge-in-use`` (guests are on it),
    ``port-refused``: then it is not there.
    """

    bridge: RelayBridge
    present: bool


class SetRelayGateway(Operation[Done], frozen=True, kw_only=True, tag="set-relay-gateway"):
    """Has a VLAN of a switched relay's bridge go to a gateway, too, or no longer.

    The tunnel is a port of the bridge, in that VLAN. Problems: as of `SetRelayBridge`, ``relay-missing`` where the
    relay has no such bridge, and ``gateway-unrouted`` where the host has no way to the gateway by that bridge: then the
    tunnel is there, and works once the way is.
    """

    gateway: RelayGateway
    present: bool


class JoinRelay(Operation[Done], frozen=True, kw_only=True, tag="join-relay"):
    """Joins a guest's NIC to its VF by the direct relay, or to its bridge of the switched one.

    It is kept, and so again after a restart of the host. Before the guest's QEMU starts, which waits for it. Problems:
    as of `BindVf` and `SetRelayBridge`, ``relay-missing``, and ``relay-joined`` where another VF, another bridge, or
    another guest has this MAC on the relay.
    """

    port: RelayPort
    settings: VfSettings = VfSettings()
    """Those that its own VF gets after a restart of the host; this sets none of them."""


class LeaveRelay(Operation[Done], frozen=True, kw_only=True, tag="leave-relay"):
    """Takes a guest's NIC off the relay; a VF of its own goes back to its driver. Unchanged where it is not on it.

    Problems: as of `JoinRelay`.
    """

    guest: str
    mac: Mac


class RejoinGuests(Operation[Done], frozen=True, kw_only=True, tag="rejoin-guests"):
    """Makes again what is missing of the guests' ports on the relay, as after a restart of the host.

    What is there as it should be stays, though Open vSwitch cannot open it at the moment.
    Problems: as of `JoinRelay`; the first one, once all that can be had is there again.
    """


class ReadRelay(Operation[RelayView], frozen=True, kw_only=True, tag="relay"):
    """The relay, with what Open vSwitch shows of it now."""


# --- OVN -------------------------------------------------------------------------------------------------

MOST_PORT_CONNECTIONS = 4096


class PortTracked(Struct, frozen=True, kw_only=True):
    """Connections of a guest's port; `left_out` are those with NAT, of other protocols with ports, or too many."""

    connections: tuple[PortConnection, ...] = ()
    left_out: int = 0


class ReadPortConnections(Operation[PortTracked], frozen=True, kw_only=True, tag="port-connections"):
    """The established connections of a guest's port of OVN's, as this host's Open vSwitch tracks them in user space.

    Problems ``connections-unreadable``, ``relay-not-joined``.
    """

    guest: str
    mac: Mac


class PutPortConnections(Operation[PutOutcome], frozen=True, kw_only=True, tag="put-port-connections"):
    """Has this host's Open vSwitch track connections of a guest's port of OVN's, those that it has not yet.

    Open vSwitch checks TCP's sequence numbers, which only the guest can tell: it is asked for them, by its port, until
    it has answered for each, or `wait_s` is over. What it sends of them meanwhile is let go once they are tracked.
    Refused are those that it has not answered for, and those that it does not know. Without `wait_s`, only connections
    without such numbers are put now; the guest is asked for the others if it resumes here within a minute. Problems
    ``connections-unreadable``, ``connections-unwritable``, ``relay-not-joined``.
    """

    guest: str
    mac: Mac
    connections: Annotated[tuple[PortConnection, ...], Meta(max_length=MOST_PORT_CONNECTIONS)]
    wait_s: Annotated[float, Meta(ge=0, le=30)] = 0


class SetBinding(Operation[Done], frozen=True, kw_only=True, tag="set-binding"):
    """Sets where OVN may bind a logical port, or that nothing says so. Safe to repeat.

    Asked of OVN's northbound database, by the controller itself, and of no agent. Problems: ``host-unreachable``,
    ``logical-port-unknown``, ``northbound-refused``, ``northd-silent``.
    """

    port: LogicalPort
    awaited: bool = True
    """Whether it is done only once ovn-northd has passed it on to the chassis."""


# --- setting a host up -----------------------------------------------------------------------------------


class CertificateRequest(Struct, frozen=True, kw_only=True):
    pem: str


class RequestCertificate(Operation[CertificateRequest], frozen=True, kw_only=True, tag="request-certificate"):
    """A signing request for the host's own key, which never leaves it; the key is made when there is none."""


class InstallCertificate(Operation[Done], frozen=True, kw_only=True, tag="install-certificate"):
    """Stores the certificate that the controller's CA has signed, and the CA; the TLS API listens from then on."""

    certificate: str
    ca: str


class RequestQemuCertificate(Operation[CertificateRequest], frozen=True, kw_only=True, tag="request-qemu-certificate"):
    """A signing request for a key of this host's QEMU, by which it may send memory by itself; made when there is none.

    Problems: ``qemu-tls-of-others`` where libvirt's folder has certificates of another authority,
    ``qemu-tls-unwritable``.
    """

    ca: str
    """PEM: the authority that is to sign it."""


class InstallQemuCertificate(Operation[Done], frozen=True, kw_only=True, tag="install-qemu-certificate"):
    """Stores the certificate that was signed, and its authority's, where libvirt has QEMU find them."""

    certificate: str
    ca: str
