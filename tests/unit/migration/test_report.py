"""The report of a migration: what its steps, its ending and the probes make of it."""

from array import array
from typing import Any

import pytest
from msgspec.structs import replace

from fakes.looking import STATE_BYTES
from fakes.samples import Case, Drive, make_fleet, make_plan
from vferry.migration.record import Outcome, StepRecord
from vferry.migration.report import Measured, make_report, phase_spans, status
from vferry.migration.stepper import Ending
from vferry.model.problem import Exit
from vferry.model.report import Connections, Phase, Stall, Status
from vferry.plan.plan import GuestSide, NetworkMode
from vferry.probe.record import ProbeRecord
from vferry.probe.tcp import TcpRecord
from vferry.report.page import page

SWITCH = Case(NetworkMode.SWITCH, GuestSide.ADDRESSES)
MEDIATED = Case(NetworkMode.SWITCH, GuestSide.ADDRESSES, mediated=True)
TWO = Case(NetworkMode.SWITCH, GuestSide.ADDRESSES, nics=2)
MEASURED = Measured(began=0.0, started="2026-01-01T00:00:00.000Z", ended=1000.0)


def record(phase: Phase, start: float, end: float, **data: float) -> StepRecord:
    done = Outcome.DONE
    return StepRecord(phase=phase, name="step", host="", outcome=done, start=start, end=end, started="", data=data)


def driven() -> tuple[Drive, Ending]:
    fleet = make_fleet(SWITCH)
    drive = Drive(fleet, make_plan(fleet, SWITCH))
    return drive, drive.run()


def test_a_migration_that_went_well() -> None:
    drive, ending = driven()
    report = make_report(drive.plan, ending, MEASURED)
    assert (report.status, report.degraded, report.network, report.notes) == (Status.COMPLETED, None, None, [])
    assert [step.name for step in report.steps] == [each.name for each in ending.records]
    assert [vf and (vf.host, vf.mac) for vf in (report.vf.before, report.vf.after)] == [
        (drive.plan.source, drive.plan.moves[0].mac),
        (drive.plan.destination, drive.plan.moves[0].mac),
    ]


def test_what_was_expected_of_devices_is_beside_what_they_sent() -> None:
    fleet = make_fleet(MEDIATED)
    drive = Drive(fleet, make_plan(fleet, MEDIATED))
    transfer = make_report(drive.plan, drive.run(), MEASURED).transfer
    assert transfer is not None
    assert transfer.device_bytes_estimated == STATE_BYTES


def test_what_was_done_as_the_copy_stalled_is_in_it_whatever_became_of_it() -> None:
    stall = Stall(action="abort", round=9, after_s=20.0)
    drive, ending = driven()
    undone = replace(ending, exit=Exit.UNDONE, at_destination=False, records=())
    for each in (ending, undone):
        transfer = make_report(drive.plan, each, replace(MEASURED, stalls=(stall,))).transfer
        assert transfer is not None
        assert transfer.stalls == [stall]


def test_each_vf_of_a_guest_with_several_is_in_it() -> None:
    fleet = make_fleet(TWO)
    drive = Drive(fleet, make_plan(fleet, TWO))
    report = make_report(drive.plan, drive.run(), MEASURED)
    found = [vf.after for vf in (report.vf, *report.more_vfs)]
    assert [(vf.mac, vf.address) for vf in found if vf] == [
        (move.mac, move.destination.address) for move in drive.plan.moves
    ]
    assert len(found) == 2
    macs = {move.mac for move in drive.plan.moves}
    assert all(page(report).count(mac) >= 2 for mac in macs)


@pytest.mark.parametrize(
    ("probes", "notes"),
    [
        (ProbeRecord(rate=1000), []),
        (
            ProbeRecord(rate=1000, wrapped=True),
            ["The measurement outlasted its record: the oldest probes are not in it"],
        ),
        (
            ProbeRecord(rate=200, wanted=1000),
            ["So that the guest keeps up, 200 probes a second were sent, not 1,000"],
        ),
    ],
)
def test_what_the_probes_lack_is_said(probes: ProbeRecord, notes: list[str]) -> None:
    drive, ending = driven()
    probes.sent.append(1)
    probes.rtt.append(1000)
    report = make_report(drive.plan, ending, Measured(began=0.0, started="", ended=1.0, probes=probes))
    assert report.notes == notes


TCP = TcpRecord(port=7, opened_at=0, sent=9, echoed=9, stall_ns=10**9, stall_at=1, retransmissions=2)


def test_a_watched_connection_is_in_it_with_the_phase_of_its_stall() -> None:
    drive, ending = driven()
    probes = ProbeRecord(rate=1000, sent=array("q", [1]), rtt=array("q", [1000]))
    report = make_report(drive.plan, ending, replace(MEASURED, probes=probes, tcp=TCP))
    assert report.network is not None
    assert report.network.tcp is not None
    assert (report.network.tcp.stall_ms, report.network.tcp.stall_phase) == (1000, Phase.CHECK)
    assert report.notes == []


@pytest.mark.parametrize(
    ("measured", "note"),
    [
        ({"tcp_note": "No TCP connection"}, "No TCP connection"),
        ({"tcp": TCP}, "TCP: longest stall 1,000 ms in check, 9 of 9 records echoed"),
    ],
)
def test_what_has_no_place_among_the_figures_is_noted(measured: dict[str, Any], note: str) -> None:
    drive, ending = driven()
    report = make_report(drive.plan, ending, replace(MEASURED, **measured))
    assert report.network is None
    (said,) = report.notes
    assert said.startswith(note)


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ({"exit": Exit.DONE, "at_destination": True}, Status.COMPLETED),
        ({"exit": Exit.OPERATOR, "at_destination": True}, Status.COMPLETED),
        ({"exit": Exit.UNDONE, "at_destination": False}, Status.UNDONE),
        ({"exit": Exit.ABORTED, "at_destination": False}, Status.ABORTED),
        ({"exit": Exit.OPERATOR, "at_destination": False}, Status.FAILED),
    ],
)
def test_where_the_guest_is_decides_the_status(ending: dict[str, object], expected: Status) -> None:
    assert status(Ending(reason="", records=(), **ending)) is expected  # type: ignore[arg-type]


def test_the_copy_ends_when_the_guest_is_paused() -> None:
    records = [record(Phase.PREPARE, 1, 2), record(Phase.COPY, 2, 10, paused_at=9.5), record(Phase.RESTORE, 10, 11)]
    assert phase_spans(records, 0, 12) == [
        (Phase.CHECK, 0, 1),
        (Phase.PREPARE, 1, 2),
        (Phase.COPY, 2, 9.5),
        (Phase.SWITCHOVER, 9.5, 10),
        (Phase.RESTORE, 10, 12),
    ]


@pytest.mark.parametrize(("paused_at", "expected"), [(1.0, 2.0), (11.0, 10.0)])
def test_a_pause_that_another_clock_puts_outside_the_copy_is_taken_to_its_edge(
    paused_at: float, expected: float
) -> None:
    spans = phase_spans([record(Phase.COPY, 2, 10, paused_at=paused_at)], 0, 12)
    assert spans[-1] == (Phase.SWITCHOVER, expected, 12)


def test_connections_that_hosts_track_and_switches_are_counted_together_and_all_is_noted() -> None:
    drive, ending = driven()
    told: tuple[dict[str, Any], ...] = (
        {"connections": {"taken": 2, "refused": 1}, "notes": ["of one"]},
        {"connections": {"taken": 3}, "notes": ["of the other"]},
    )
    records = (
        *(replace(each, data=data) for each, data in zip(ending.records, told, strict=False)),
        *ending.records[2:],
    )
    report = make_report(drive.plan, replace(ending, records=records), MEASURED)
    assert report.connections == Connections(taken=5, refused=1)
    assert report.notes == ["of one", "of the other"]
