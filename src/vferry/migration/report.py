"""From an ending, and what the probes saw, to the report. Pure."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, convert

from vferry.migration.conductor import Ending
from vferry.migration.record import Outcome, StepRecord
from vferry.model.compression import Compressed
from vferry.model.problem import Exit
from vferry.model.report import (
    Phase,
    PhaseSpan,
    Report,
    Status,
    Step,
    Timeline,
    Transfer,
    Vf,
    VfState,
)
from vferry.plan.plan import NetworkMode, Plan, VfMove
from vferry.probe.analysis import Span, attribute, buckets
from vferry.probe.record import ProbeRecord


class Measured(Struct, frozen=True, kw_only=True):
    """What was seen from outside: the probes, or why there are none, and the transfer rate over time.

    Times are this machine's CLOCK_MONOTONIC in seconds; `rates` holds pairs of a time and bytes per second.
    """

    began: float
    started: str
    ended: float
    probes: ProbeRecord | None = None
    note: str | None = None
    rates: tuple[tuple[float, float], ...] = ()


def make_report(plan: Plan, ending: Ending, measured: Measured) -> Report:
    """The whole report of a migration that was carried out."""
    spans = phase_spans(ending.records, measured.began, measured.ended)
    figures = _figures(ending.records)
    vfs = [_vf(plan, ending, move) for move in plan.moves]
    return Report(
        operation=plan.operation,
        guest=plan.guest,
        source=plan.source,
        destination=plan.destination,
        status=status(ending),
        network_mode=plan.network_mode,
        reason=ending.reason,
        started=measured.started,
        total_s=round(measured.ended - measured.began, 3),
        pause_ms=figures.get("pause_ms"),
        network=attribute(measured.probes, spans) if measured.probes else None,
        network_note=measured.note,
        transfer=_transfer(plan, figures),
        vf=vfs[0] if vfs else Vf(),
        more_vfs=vfs[1:],
        steps=[_row(record) for record in ending.records],
        degraded=ending.degraded,
        notes=[*plan.notes, *ending.notes, *_gaps(measured)],
        timeline=_timeline(spans, measured),
    )


def status(ending: Ending) -> Status:
    """What the ending means: ``failed`` is left for what needs the operator though the guest did not move."""
    if ending.at_destination:
        return Status.COMPLETED
    return {Exit.UNDONE: Status.UNDONE, Exit.ABORTED: Status.ABORTED}.get(ending.exit, Status.FAILED)


def phase_spans(records: Sequence[StepRecord], began: float, ended: float) -> list[Span]:
    """When each phase ran: one follows on the other, the first being `check`.

    The copy ends, and the switchover begins, when QEMU stopped the guest, where the source saw that.
    """
    starts: list[tuple[Phase, float]] = [(Phase.CHECK, began)]
    for record in records:
        if record.phase is not starts[-1][0]:
            starts.append((record.phase, record.start))
        paused = record.data.get("paused_at")
        if record.phase is Phase.COPY and paused is not None:
            starts.append((Phase.SWITCHOVER, max(record.start, min(paused, record.end))))
    ends = [start for _, start in starts[1:]] + [ended]
    return [(phase, start, end) for (phase, start), end in zip(starts, ends, strict=True)]


def _transfer(plan: Plan, figures: dict[str, Any]) -> Transfer:
    return Transfer(
        policy=plan.transfer.policy,
        codec=plan.transfer.codec.value,
        guest_bytes=figures.get("guest_bytes"),
        wire_bytes=figures.get("wire_bytes"),
        rounds=figures.get("rounds"),
        cpu_s=figures.get("cpu_s"),
        cpu_peak=figures.get("cpu_peak"),
        pause_limit_ms=figures.get("pause_limit_ms"),
        throttle=figures.get("throttle"),
        **_compression(convert(figures.get("compressed"), Compressed | None)),
    )


def _compression(compressed: Compressed | None) -> dict[str, Any]:
    """What is to say of it; of pages only where they were seen."""
    if compressed is None:
        return {}
    names = ("stream_bytes", "ratio", "codecs", *(("pages", "zero_pages", "delta_pages") if compressed.pages else ()))
    return {name: getattr(compressed, name) for name in names}


def _figures(records: Sequence[StepRecord]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records:
        found |= record.data
    return found


def _gaps(measured: Measured) -> list[str]:
    if measured.probes and measured.probes.wrapped:
        return ["The measurement outlasted its record: the oldest probes are not in it"]
    return []


def _timeline(spans: list[Span], measured: Measured) -> Timeline:
    began = measured.began
    return Timeline(
        phases=[PhaseSpan(phase=p, start_s=round(s - began, 3), end_s=round(e - began, 3)) for p, s, e in spans],
        rate=[(round(at - began, 3), rate) for at, rate in measured.rates],
        probes=buckets(measured.probes, began, measured.ended) if measured.probes else None,
    )


def _row(record: StepRecord) -> Step:
    return Step(
        phase=record.phase,
        name=f"undo {record.name}" if record.outcome in (Outcome.UNDONE, Outcome.UNDO_FAILED) else record.name,
        host=record.host,
        started=record.started,
        duration_ms=round((record.end - record.start) * 1000, 1),
        outcome=record.outcome.value,
        detail=record.detail,
    )


def _vf(plan: Plan, ending: Ending, move: VfMove) -> Vf:
    """A VF's state before and after; None after where the guest is without."""
    source = _state(plan.source, move, at_source=True)
    if not ending.at_destination:
        return Vf(before=source, after=source if ending.exit in (Exit.UNDONE, Exit.ABORTED) else None)
    lost = ending.degraded in ("standby", "no-vf") and move.mode is not NetworkMode.MACVTAP
    return Vf(before=source, after=None if lost else _state(plan.destination, move))


def _state(host: str, move: VfMove, *, at_source: bool = False) -> VfState:
    vf, settings = move.source if at_source else move.destination, move.source_settings
    return VfState(
        host=host,
        address=vf.address,
        pf=vf.pf,
        index=vf.index,
        mac=move.mac,
        vlan=settings.vlan,
        qos=settings.qos,
        trust=settings.trust,
        spoof_check=settings.spoof_check,
        link_state=settings.link_state.value if settings.link_state else None,
        min_rate=settings.min_tx_rate,
        max_rate=settings.max_tx_rate,
    )
