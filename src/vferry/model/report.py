"""The report of a migration: what happened, measured, with units. What was not measured is null, never 0."""

from enum import StrEnum

import msgspec

from vferry.model.compression import CodecShare


class Phase(StrEnum):
    """The phases of a migration as the operator sees them, in their order."""

    CHECK = "check"
    PREPARE = "prepare"
    TO_STANDBY = "to-standby"
    COPY = "copy"
    SWITCHOVER = "switchover"
    TO_VF = "to-vf"
    RESTORE = "restore"
    DONE = "done"


class Kind(StrEnum):
    """What an operation does."""

    MIGRATION = "migration"
    NIC = "nic"
    """It puts a guest's NIC on something else, on its host."""


class Status(StrEnum):
    """How a migration ended; `COMPLETED` with `Report.degraded` set is completed, but not whole."""

    COMPLETED = "completed"
    REFUSED = "refused"
    UNDONE = "undone"
    FAILED = "failed"
    ABORTED = "aborted"


class PhaseNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """What the probes of one phase saw. `longest_gap_ms` is null if no gap began in the phase."""

    lost: int
    late: int
    longest_gap_ms: float | None


class Tcp(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a TCP connection to the guest that was opened before the migration.

    `sent` and `echoed`: numbered records written, and those that came back in their place, byte for byte; `wrong_bytes`
    did not. `stall_ms`: the longest time without an echo, without the prober's own stalls, and `stall_phase` the phase
    in which it began; `self_stall_max_ms` is the prober's longest one, null if it was never more than 20 ms.
    `retransmissions`: segments that this machine's kernel sent again. `ended`: why the connection ended, null if it
    did not; `ended_s` after how many seconds since the operation started, in `ended_phase`.
    """

    port: int
    sent: int
    echoed: int
    wrong_bytes: int
    stall_ms: float | None
    stall_phase: Phase | None = None
    self_stall_max_ms: float | None = None
    retransmissions: int | None
    ended: str | None = None
    ended_s: float | None = None
    ended_phase: Phase | None = None

    @property
    def survived(self) -> bool:
        """Whether it was seen to live at the end: everything came back, right or wrong."""
        return self.ended is None and (self.echoed == self.sent or self.wrong_bytes > 0)


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """What the probes saw.

    `lost`: not answered within a second. `late`: answered after more than 200 ms, within a second.
    `longest_gap_ms`: the longest time without an answer, without the prober's own stalls.
    `self_stall_max_ms`: the longest time for which the prober itself did not get to send, beyond its interval;
    null if it was never more than 20 ms. `unsent`: probes this machine's kernel refused to send, part of `lost`.
    `tcp` is null unless it was asked for and there was a connection.
    """

    probe_hz: int
    sent: int
    lost: int
    late: int
    longest_gap_ms: float | None
    phases: dict[Phase, PhaseNetwork]
    self_stall_max_ms: float | None = None
    unsent: int | None = None
    tcp: Tcp | None = None


class Stall(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was done as the copy stalled: in its pass `round`, and `after_s` seconds after its start.

    `action` is ``pause`` (QEMU may pause the guest for `pause_ms` from then on), ``throttle`` (QEMU slows the guest's
    processors down by `throttle` percent) or ``abort``.
    """

    action: str
    round: int
    after_s: float
    pause_ms: int | None = None
    throttle: int | None = None


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """The memory path. Bytes; `cpu_s` in seconds of one core, `cpu_peak` in cores.

    `pause_limit_ms` is how long QEMU was allowed to pause the guest for its memory in the end, `throttle` by how many
    percent it slowed the guest's processors down at most; null where it was not allowed to. `stalls` is all that was
    done as the copy stalled, in order, also of one that was undone.
    `direct`: QEMU sent the memory by itself; then `wire_bytes` has of it what QEMU says, without TLS's own, and the CPU
    is that of gateways which carried libvirt's connection alone.
    `codec` is the one that was asked for, `codecs` has what was used, by name. `stream_bytes` is what QEMU wrote and
    the gateway compressed, `ratio` how many bytes of it went over the wire as one; null where nothing was compressed.
    Of the `pages` in multifd's packets, `zero_pages` were empty, `delta_pages` went as differences, `resident_pages`
    were at the destination already; null where there were no such packets. `device_bytes` is the state that VFIO
    devices sent; null where none migrated itself. `device_bytes_estimated` is how much their drivers said before that
    it would be; null where they did not.
    """

    policy: str
    codec: str | None = None
    direct: bool = False
    guest_bytes: int | None = None
    wire_bytes: int | None = None
    rounds: int | None = None
    cpu_s: float | None = None
    cpu_peak: float | None = None
    stream_bytes: int | None = None
    ratio: float | None = None
    pages: int | None = None
    zero_pages: int | None = None
    delta_pages: int | None = None
    resident_pages: int | None = None
    codecs: dict[str, CodecShare] = {}
    device_bytes: int | None = None
    device_bytes_estimated: int | None = None
    pause_limit_ms: int | None = None
    throttle: int | None = None
    stalls: list[Stall] = []


class Connections(msgspec.Struct, frozen=True, kw_only=True):
    """The guest's tracked connections when it left: how many the destination's connection tracking has `taken` over.

    `refused` are those that its kernel did not take, or of which the guest has not told its switch what that needs;
    `left_out` have NAT at the source, are of a protocol that is not taken along, or were too many.
    """

    taken: int
    refused: int = 0
    left_out: int = 0

    def __add__(self, other: "Connections") -> "Connections":
        """Those of both."""
        return Connections(
            taken=self.taken + other.taken,
            refused=self.refused + other.refused,
            left_out=self.left_out + other.left_out,
        )


class VfState(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual function with what is set on it. Rates in Mbit/s; null where it was not read."""

    host: str
    address: str
    pf: str | None = None
    index: int | None = None
    mac: str | None = None
    vlan: int | None = None
    qos: int | None = None
    trust: bool | None = None
    spoof_check: bool | None = None
    link_state: str | None = None
    min_rate: int | None = None
    max_rate: int | None = None


class Vf(msgspec.Struct, frozen=True, kw_only=True):
    """The guest's virtual function before and after; null where it had or has none."""

    before: VfState | None = None
    after: VfState | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step as it was carried out. `started` is ISO 8601 in UTC; `outcome` is a word such as ``done``."""

    phase: Phase
    name: str
    host: str | None = None
    started: str | None = None
    duration_ms: float | None = None
    outcome: str
    detail: str = ""


class PhaseSpan(msgspec.Struct, frozen=True, kw_only=True):
    """When a phase ran, in seconds since the operation started."""

    phase: Phase
    start_s: float
    end_s: float


class ProbeBuckets(msgspec.Struct, frozen=True, kw_only=True):
    """Probes by the time they were sent, in buckets of `bucket_ms` from the start of the operation.

    `rtt_ms_max` is null in a bucket whose probes had no answer, or which had no probes.
    """

    bucket_ms: int = 100
    lost: list[int]
    late: list[int]
    rtt_ms_max: list[float | None]


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """What the picture shows. `rate`: pairs of seconds since the start and bytes per second on the wire."""

    phases: list[PhaseSpan] = []
    rate: list[tuple[float, float]] = []
    probes: ProbeBuckets | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole report, as `--json` prints it. `started` is ISO 8601 in UTC.

    `vf` is the guest's first one, and `more_vfs` are the others, in the order of its NICs.
    `connections` is null where none were taken along, since the hosts do not track them, or nothing is known of them.
    `network` is null when nothing was measured, and then `network_note` says why. `degraded` is null or says
    what is missing though the migration completed: ``standby`` (the guest is on its standby NIC), ``no-vf`` (it is
    without its VF, mode `detach`), ``leftovers`` (it is whole; something else was not put in order). `dark_s` is for
    how long a NIC had no path at all, from the VF's unplugging until the next one was plugged; null where it had one.

    Of the ``nic`` operations, source and destination are the guest's host; `mac` is put on `to`, and what only a
    migration has is null. ``leftovers`` are there, too.
    """

    operation: str
    guest: str
    source: str
    destination: str
    status: Status
    network_mode: str | None = None
    reason: str = ""
    started: str
    total_s: float | None = None
    pause_ms: float | None = None
    dark_s: float | None = None
    network: Network | None = None
    network_note: str | None = None
    transfer: Transfer | None = None
    connections: Connections | None = None
    vf: Vf = Vf()
    more_vfs: list[Vf] = []
    steps: list[Step] = []
    degraded: str | None = None
    notes: list[str] = []
    timeline: Timeline | None = None
    kind: Kind = Kind.MIGRATION
    mac: str | None = None
    to: str | None = None
