"""From an ending, and what the probes saw, to the report. Pure."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, convert
from msgspec.structs import replace

from vferry.migration.record import Outcome, StepRecord
from vferry.migration.stepper import Ending
from vferry.model.compression import Compressed
from vferry.model.problem import Exit
from vferry.model.report import (
    Connections,
    Phase,
    PhaseSpan,
    Report,
    Stall,
    Status,
    Step,
    Tcp,
    Timeline,
    Transfer,
    Vf,
    VfState,
)
from vferry.plan.plan import Plan, VfMove
from vferry.probe.analysis import Span, attribute, buckets, connection
from vferry.probe.record import ProbeRecord
from vferry.probe.tcp import TcpRecord
from vferry.report import words


class Measured(Struct, frozen=True, kw_only=True):
    """What was seen from outside: the probes and the TCP connection, or why there are none, and how the copy went.

    Times are this machine's CLOCK_MONOTONIC in seconds; `rates` holds pairs of a time and bytes per second.
    """

    began: float
    started: str
    ended: float
    probes: ProbeRecord | None = None
    note: str | None = None
    tcp: TcpRecord | None = None
    tcp_note: str | None = None
    rates: tuple[tuple[float, float], ...] = ()
    stalls: tuple[Stall, ...] = ()


def make_report(plan: Plan, ending: Ending, measured: Measured) -> Report:
    """The whole report of a migration that was carried out."""
    spans = phase_spans(ending.records, measured.began, measured.ended)
    figures = _figures(ending.records)
    vfs = [_vf(plan, ending, move) for move in plan.moves]
    tcp = connection(measured.tcp, spans, measured.began) if measured.tcp else None
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
        dark_s=_dark(plan, ending.records),
        network=replace(attribute(measured.probes, spans), tcp=tcp) if measured.probes else None,
        network_note=measured.note,
        transfer=_transfer(plan, figures, measured.stalls),
        connections=_connections(ending.records),
        vf=vfs[0] if vfs else Vf(),
        more_vfs=vfs[1:],
        steps=rows(ending.records),
        degraded=ending.degraded,
        notes=[*plan.notes, *ending.notes, *_notes(ending.records), *_gaps(measured, tcp)],
        timeline=_timeline(spans, measured),
    )


def status(ending: Ending) -> Status:
    """What the ending means: ``failed`` is left for what needs the operator though the guest did not move."""
    if ending.at_destination:
        return Status.COMPLETED
    ended = {Exit.UNDONE: Status.UNDONE, Exit.ABORTED: Status.ABORTED, Exit.REFUSED: Status.REFUSED}
    return ended.get(ending.exit, Status.FAILED)


def rows(records: Sequence[StepRecord]) -> list[Step]:
    """The steps as they were carried out, or taken back."""
    return [_row(record) for record in records]


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


def _transfer(plan: Plan, figures: dict[str, Any], stalls: tuple[Stall, ...]) -> Transfer:
    return Transfer(
        policy=plan.transfer.policy,
        codec=plan.transfer.codec.value,
        guest_bytes=figures.get("guest_bytes"),
        direct=plan.transfer.direct,
        wire_bytes=_wire_bytes(plan, figures),
        rounds=figures.get("rounds"),
        cpu_s=figures.get("cpu_s"),
        cpu_peak=figures.get("cpu_peak"),
        device_bytes=figures.get("device_bytes"),
        device_bytes_estimated=plan.device_state.bytes if plan.device_state else None,
        pause_limit_ms=figures.get("pause_limit_ms"),
        throttle=figures.get("throttle"),
        stalls=[*stalls],
        **_compression(convert(figures.get("compressed"), Compressed | None)),
    )


def _wire_bytes(plan: Plan, figures: dict[str, Any]) -> int | None:
    """What the gateways have put on the wire, and QEMU where it did so by itself."""
    carried: int | None = figures.get("wire_bytes")
    if carried is None or not plan.transfer.direct:
        return carried
    return carried + int(figures.get("sent_bytes") or 0)


def _compression(compressed: Compressed | None) -> dict[str, Any]:
    """What is to say of it; of pages only where they were seen."""
    if compressed is None:
        return {}
    pages = ("pages", "zero_pages", "delta_pages", "resident_pages") if compressed.pages else ()
    names = ("stream_bytes", "ratio", "codecs", *pages)
    return {name: getattr(compressed, name) for name in names}


def _dark(plan: Plan, records: Sequence[StepRecord]) -> float | None:
    """From when the first VF with nothing beside it was taken away until the last was plugged."""
    if not any(move.dark for move in plan.moves):
        return None
    gone = [record.start for record in records if record.name == "unplug-vf"]
    back = [record.end for record in records if record.name == "plug-vf" and record.outcome is Outcome.DONE]
    return round(max(back) - min(gone), 3) if gone and back else None


def _figures(records: Sequence[StepRecord]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records:
        found |= record.data
    return found


def _connections(records: Sequence[StepRecord]) -> Connections | None:
    """Those that hosts track and those that switches do, together."""
    told = (record.data.get("connections") for record in records)
    found = [convert(each, Connections) for each in told if each is not None]
    return sum(found, Connections(taken=0)) if found else None


def _notes(records: Sequence[StepRecord]) -> list[str]:
    return [note for record in records for note in record.data.get("notes", ())]


def _gaps(measured: Measured, tcp: Tcp | None) -> list[str]:
    """What the probes' figures lack; a connection beside which no probe was answered is told in words."""
    said = []
    if measured.probes and measured.probes.wrapped:
        said.append("The measurement outlasted its record: the oldest probes are not in it")
    if measured.probes and measured.probes.wanted:
        wanted, rate = measured.probes.wanted, measured.probes.rate
        said.append(f"So that the guest keeps up, {rate:,} probes a second were sent, not {wanted:,}")
    if measured.tcp_note:
        said.append(measured.tcp_note)
    if tcp is not None and measured.probes is None:
        said.append(f"TCP: {words.tcp(tcp)}")
    return said


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
    lost = ending.degraded in ("standby", "no-vf") and move.plugged
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
