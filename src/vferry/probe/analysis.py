"""From a record of probes to the figures of a report: pure functions. docs/probe.md says what each figure means."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from vferry.model.report import Network, Phase, PhaseNetwork, ProbeBuckets, Tcp
from vferry.probe.record import UNSENT, ProbeRecord
from vferry.probe.tcp import TcpRecord

MS = 1_000_000
SECOND = 1000 * MS
LATE = 200 * MS
STALL = 20 * MS

# A phase with its start and end by CLOCK_MONOTONIC, in seconds.
Span = tuple[Phase, float, float]


class Gap(NamedTuple):
    """A time without an answer: `start` by CLOCK_MONOTONIC and `length`, both in ns, own stalls taken off."""

    start: int
    length: int


def stalls(record: ProbeRecord) -> list[int]:
    """For each probe: for how many ns before it the prober failed to send, beyond interval and tolerance."""
    interval = SECOND // record.rate
    pairs = zip(record.sent, record.sent[1:], strict=False)
    return [0, *(max(0, later - sooner - interval) for sooner, later in pairs)][: len(record.sent)]


def gaps(record: ProbeRecord) -> list[Gap]:
    """All times between one answer's arrival and the next one's, from the first probe to the last.

    While the prober stalls nothing can be answered, so the stalls between the two probes are taken off: what
    remains is at most what the network did, and never the prober.
    """
    if not record.sent:
        return []
    excess = list(accumulate(stall if stall > STALL else 0 for stall in stalls(record)))
    arrivals = sorted((record.sent[at] + rtt, at) for at, rtt in enumerate(record.rtt) if 0 <= rtt <= SECOND)
    found = []
    before, of = record.sent[0], 0
    for arrival, at in [*arrivals, (record.sent[-1], len(record.sent) - 1)]:
        own = max(0, excess[at] - excess[of])
        if arrival > before:
            found.append(Gap(before, max(0, arrival - before - own)))
            before, of = arrival, at
    return found


def attribute(record: ProbeRecord, phases: Sequence[Span]) -> Network:
    """Shares the record out over the phases.

    A probe belongs to the phase in which it was sent, a gap, with its full length, to the phase in which it
    began. What lies between two phases belongs to the one before, what lies before all to the first: so the
    phases' losses add up to the total, and the longest gap of all is the longest of one phase.
    """
    order = sorted(phases, key=lambda span: span[1])
    starts = [round(start * SECOND) for _, start, _ in order]
    found = gaps(record)
    lost = [0] * len(order)
    late = [0] * len(order)
    longest: list[int | None] = [None] * len(order)
    if order:
        for sent, rtt in zip(record.sent, record.rtt, strict=True):
            if _is_lost(rtt):
                lost[_at(starts, sent)] += 1
            elif rtt > LATE:
                late[_at(starts, sent)] += 1
        for gap in found:
            at = _at(starts, gap.start)
            longest[at] = max(longest[at] or 0, gap.length)
    own = max(stalls(record), default=0)
    return Network(
        probe_hz=record.rate,
        sent=len(record.sent),
        lost=sum(_is_lost(rtt) for rtt in record.rtt),
        late=sum(LATE < rtt <= SECOND for rtt in record.rtt),
        longest_gap_ms=_ms(max((gap.length for gap in found), default=None)),
        phases=_merged(order, lost, late, longest),
        self_stall_max_ms=_ms(own) if own > STALL else None,
        unsent=sum(rtt == UNSENT for rtt in record.rtt),
    )


def connection(record: TcpRecord, phases: Sequence[Span], began: float) -> Tcp:
    """What a report says of a TCP connection; `began` is CLOCK_MONOTONIC in seconds.

    A stall belongs, as a gap does, to the phase in which it began.
    """
    order = sorted(phases, key=lambda span: span[1])
    starts = [round(start * SECOND) for _, start, _ in order]

    def phase(moment: int) -> Phase | None:
        return order[_at(starts, moment)][0] if order else None

    ended_at = record.ended_at
    return Tcp(
        port=record.port,
        sent=record.sent,
        echoed=record.echoed,
        wrong_bytes=record.wrong,
        stall_ms=_ms(record.stall_ns) if record.sent else None,
        stall_phase=phase(record.stall_at) if record.sent else None,
        self_stall_max_ms=_ms(record.self_stall_ns) if record.self_stall_ns > STALL else None,
        retransmissions=record.retransmissions,
        ended=record.ended,
        ended_s=None if ended_at is None else round(ended_at / SECOND - began, 3),
        ended_phase=None if ended_at is None else phase(ended_at),
    )


def buckets(record: ProbeRecord, start: float, end: float, bucket_ms: int = 100) -> ProbeBuckets:
    """The probes sent from `start` to `end` (CLOCK_MONOTONIC, seconds) in buckets of `bucket_ms`."""
    width = bucket_ms * MS
    first, last = round(start * SECOND), round(end * SECOND)
    count = max(0, -(-(last - first) // width))
    lost, late = [0] * count, [0] * count
    slowest: list[float | None] = [None] * count
    for sent, rtt in zip(record.sent, record.rtt, strict=True):
        if not first <= sent < last:
            continue
        at = (sent - first) // width
        if _is_lost(rtt):
            lost[at] += 1
            continue
        late[at] += rtt > LATE
        slowest[at] = max(slowest[at] or 0.0, rtt / MS)
    return ProbeBuckets(bucket_ms=bucket_ms, lost=lost, late=late, rtt_ms_max=slowest)


def _is_lost(rtt: int) -> bool:
    return not 0 <= rtt <= SECOND


def _at(starts: list[int], moment: int) -> int:
    """The index of the last phase that had begun at `moment`, or of the first phase."""
    return max(0, bisect_right(starts, moment) - 1)


def _ms(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else round(nanoseconds / MS, 3)


def _merged(
    order: Sequence[Span], lost: list[int], late: list[int], longest: list[int | None]
) -> dict[Phase, PhaseNetwork]:
    """One entry a phase, also for a phase that ran twice."""
    entries: dict[Phase, PhaseNetwork] = {}
    for (phase, _, _), more_lost, more_late, gap in zip(order, lost, late, longest, strict=True):
        old = entries.get(phase, PhaseNetwork(lost=0, late=0, longest_gap_ms=None))
        both = [value for value in (old.longest_gap_ms, _ms(gap)) if value is not None]
        entries[phase] = PhaseNetwork(
            lost=old.lost + more_lost, late=old.late + more_late, longest_gap_ms=max(both, default=None)
        )
    return entries
