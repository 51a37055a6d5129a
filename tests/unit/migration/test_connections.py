"""Connections that a guest has, while it migrates between hosts that track them."""

from collections.abc import Callable

import pytest
from noted import MEASURED, assert_only_noted

from fakes import faults
from fakes.contract import moved
from fakes.fleet import Fault, Instead
from fakes.samples import DESTINATION, SOURCE, Case, Drive, make_fleet, make_plan
from fakes.samples import GUEST as WEB
from vferry.host.api import MOST_PUT, PutConnections, PutOutcome, ReadConnections, ReadMigration
from vferry.migration.connections import _LEASE_S
from vferry.migration.report import make_report
from vferry.model.connections import Connection, Way
from vferry.model.problem import Exit
from vferry.model.report import Connections
from vferry.plan.plan import GuestSide, NetworkMode

VIRTIO = Case(NetworkMode.VIRTIO, GuestSide.ADDRESSES)
SWITCH = Case(NetworkMode.SWITCH, GuestSide.ADDRESSES)
GUEST, PEER = "192.0.2.7", "192.0.2.1"
NOTE = "host2 may not know all of the guest's connections"


def connection(port: int, guest: str = GUEST) -> Connection:
    return Connection(
        protocol=17,
        original=Way(source=PEER, destination=guest, ports=(port, 53)),
        reply=Way(source=guest, destination=PEER, ports=(53, port)),
    )


FIRST, LATER, STRANGERS = connection(1), connection(2), connection(3, "192.0.2.9")


def tracking(case: Case = VIRTIO, *, copy_s: float = 3.0) -> Drive:
    """A guest with one connection, on hosts that track."""
    fleet = make_fleet(case)
    fleet.pace.copy_s = copy_s
    fleet.hosts[SOURCE].connections = {FIRST: None, STRANGERS: None}
    fleet.hosts[DESTINATION].connections = {}
    return Drive(fleet, make_plan(fleet, case))


def asked(drive: Drive) -> list[tuple[str, str]]:
    kinds = (ReadConnections, PutConnections)
    return [
        (type(call.operation).__name__, call.host) for call in drive.fleet.calls if isinstance(call.operation, kinds)
    ]


@pytest.mark.parametrize("case", [VIRTIO, SWITCH], ids=str)
def test_they_are_known_before_the_guest_is_there_and_for_good_afterwards(case: Case) -> None:
    drive = tracking(case)
    put: list[int | None] = []
    known = drive.fleet.hosts[DESTINATION].connections

    def look() -> None:
        assert known is not None
        put.append(known.get(FIRST, 0))

    drive.fleet.faults.append(faults.doing(faults.at_operation(PutConnections), look, after=True))
    drive.fleet.faults[-1].times = 100
    ending = drive.run()
    assert ending.exit is Exit.DONE
    assert moved(drive.fleet, drive.plan) == []
    assert put == [_LEASE_S] * (len(put) - 1) + [None]
    assert len(put) >= 4, "one a second of the copy, in the pause, and after the resume"
    assert known == {FIRST: None}
    report = make_report(drive.plan, ending, MEASURED)
    assert (report.connections, report.notes) == (Connections(taken=1), [])
    (step,) = (step for step in report.steps if step.name == "take-connections")
    assert step.detail == "1 connection"


def test_what_comes_up_in_the_last_moment_goes_along() -> None:
    drive = tracking()
    here, there = (drive.fleet.hosts[name] for name in (SOURCE, DESTINATION))

    def come_up() -> None:
        assert here.connections is not None
        here.connections[LATER] = None

    drive.fleet.faults.append(faults.doing(lambda _call: drive.fleet.running(WEB) == [], come_up))
    assert drive.run().exit is Exit.DONE
    assert there.connections == {FIRST: None, LATER: None}


def test_the_destination_is_told_while_the_guest_is_paused() -> None:
    """Which is between two of the looks that are taken each second."""
    drive = tracking(copy_s=3.5)
    drive.fleet.pace.pause_s = 0.5
    told: list[list[str]] = []
    look = faults.doing(faults.at_operation(PutConnections), lambda: told.append(drive.fleet.running(WEB)))
    look.times = 100
    drive.fleet.faults.append(look)
    assert drive.run().exit is Exit.DONE
    assert told == [[SOURCE]] * 4 + [[], [DESTINATION]]


def test_hosts_that_do_not_track_are_not_asked() -> None:
    fleet = make_fleet(VIRTIO)
    drive = Drive(fleet, make_plan(fleet, VIRTIO))
    ending = drive.run()
    assert asked(drive) == []
    assert make_report(drive.plan, ending, MEASURED).connections is None


@pytest.mark.parametrize("operation", [ReadConnections, PutConnections])
@pytest.mark.parametrize("fault", [faults.refusal, faults.lost_answer])
def test_that_it_cannot_be_done_is_noted_and_no_more(operation: type, fault: Callable[..., Fault]) -> None:
    drive = tracking()
    drive.fleet.faults.append(fault(faults.at_operation(operation), times=1000))
    assert_only_noted(drive, NOTE)


def test_a_source_that_is_silent_after_the_resume_does_not_hold_up_the_announcements() -> None:
    drive = tracking()
    reads = faults.at_operation(ReadConnections)
    landed = lambda call: reads(call) and drive.fleet.running(WEB) == [DESTINATION]  # noqa: E731
    drive.fleet.faults.append(faults.outage(landed, seconds=20))
    ending = drive.run()
    assert ending.exit is Exit.DONE
    (taken, announced) = (record for record in ending.records if record.name in ("take-connections", "announce"))
    assert announced.start - taken.start <= 5.1
    assert NOTE in taken.detail


def test_a_copy_that_is_aborted_leaves_them_for_a_while_only() -> None:
    drive = tracking()

    def abort() -> None:
        drive.abort = True

    drive.fleet.faults.append(faults.doing(faults.at_operation(PutConnections), abort, after=True))
    assert drive.run().exit is Exit.ABORTED
    assert drive.fleet.hosts[DESTINATION].connections == {FIRST: _LEASE_S}


def test_a_controller_that_dies_meanwhile_is_followed_by_one_that_goes_on() -> None:
    drive = tracking()
    drive.fleet.faults.append(faults.crash(lambda call: call.number > 20 and isinstance(call.operation, ReadMigration)))
    with pytest.raises(faults.Crash):
        drive.run()
    assert drive.run().exit is Exit.DONE
    assert drive.fleet.hosts[DESTINATION].connections == {FIRST: None}


def test_many_go_in_several_requests_and_all_are_counted() -> None:
    drive = tracking()
    here = drive.fleet.hosts[SOURCE]
    here.connections = {connection(at): None for at in range(MOST_PUT + 1)}
    refused = Fault(
        lambda call: isinstance(call.operation, PutConnections) and len(call.operation.connections) == 1,
        lambda _fleet, _call: _instead(PutOutcome(refused=1, why="No buffer space available")),
        times=1000,
    )
    drive.fleet.faults.append(refused)
    ending = drive.run()
    report = make_report(drive.plan, ending, MEASURED)
    assert report.connections == Connections(taken=MOST_PUT, refused=1)
    assert "2,048 connections, 1 refused: No buffer space available" in [step.detail for step in report.steps]


def _instead(answer: PutOutcome) -> None:
    raise Instead(answer)


def test_a_slow_look_is_not_repeated_at_once() -> None:
    """A tenth of the time is spent on it, whatever it takes."""
    drive = tracking(copy_s=60.0)
    drive.run()
    often = len(asked(drive))
    slow = tracking(copy_s=60.0)
    slow.fleet.hosts[SOURCE].connections = {connection(at): None for at in range(20 * MOST_PUT)}
    slow.run()
    reads = [kind for kind, _ in asked(slow) if kind == "ReadConnections"]
    assert len(reads) < often / 3


def test_nothing_is_asked_once_the_guest_is_there_but_what_the_step_asks() -> None:
    drive = tracking()
    drive.run()
    kinds = [type(call.operation).__name__ for call in drive.fleet.calls]
    last = max(at for at, kind in enumerate(kinds) if kind == "PutConnections")
    assert kinds[last - 1] == "ReadConnections"
    assert "Announce" in kinds[last:]
