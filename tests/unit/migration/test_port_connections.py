"""Connections of a guest whose port is OVN's, which the switches of its hosts track."""

from collections.abc import Callable

import pytest
from noted import MEASURED, assert_only_noted

from fakes import faults
from fakes.contract import moved
from fakes.fleet import Fault, Instead
from fakes.samples import DESTINATION, MAC, SOURCE, Case, Drive, make_fleet, make_plan
from fakes.samples import GUEST as WEB
from vferry.host.api import PutOutcome, PutPortConnections, ReadPortConnections, SetBinding
from vferry.migration.connections import _ANSWERS_S, _LAST_OF_PORTS_S
from vferry.migration.report import make_report
from vferry.model.connections import PortConnection, Way
from vferry.model.problem import Exit
from vferry.model.report import Connections, Report
from vferry.plan.plan import GuestSide, NetworkMode

BOUND = Case(NetworkMode.RELAY, GuestSide.NOBODY, nics=0, switched=1, bound=True)
TCP, UDP = 6, 17
NOTE = "host2 may not track all of the guest's connections"


def connection(protocol: int, port: int) -> PortConnection:
    way = Way(source="192.0.2.1", destination="192.0.2.7", ports=(port, 53))
    return PortConnection(protocol=protocol, way=way)  # type: ignore[arg-type]


STREAM, DATAGRAMS = connection(TCP, 1), connection(UDP, 2)


def tracking(*, copy_s: float = 3.0) -> Drive:
    """A guest with two connections, on hosts whose switches track."""
    fleet = make_fleet(BOUND)
    fleet.pace.copy_s = copy_s
    fleet.hosts[SOURCE].port_connections = {STREAM, DATAGRAMS}
    return Drive(fleet, make_plan(fleet, BOUND))


def puts(drive: Drive) -> list[PutPortConnections]:
    return [call.operation for call in drive.fleet.calls if isinstance(call.operation, PutPortConnections)]


def reported(drive: Drive) -> Report:
    return make_report(drive.plan, drive.run(), MEASURED)


def test_they_are_tracked_where_the_guest_goes() -> None:
    """The agent there is told each second, and asks the guest as it resumes; by the step it is certain."""
    drive = tracking()
    ending = drive.run()
    assert (ending.exit, moved(drive.fleet, drive.plan)) == (Exit.DONE, [])
    assert drive.fleet.hosts[DESTINATION].port_connections == {STREAM, DATAGRAMS}
    asked = [each.wait_s for each in puts(drive)]
    assert len(asked) >= 4
    assert asked == [0] * (len(asked) - 1) + [_ANSWERS_S]
    report = make_report(drive.plan, ending, MEASURED)
    assert (report.connections, report.notes) == (Connections(taken=2), [])
    (step,) = (step for step in report.steps if step.name == "take-port-connections")
    assert step.detail == "2 connections"


def test_they_are_asked_for_while_the_source_knows() -> None:
    """Once OVN has the port at the destination alone, its zone is forgotten."""
    drive = tracking()
    drive.run()
    kinds = [type(call.operation).__name__ for call in drive.fleet.calls]
    last = max(at for at, kind in enumerate(kinds) if kind == "PutPortConnections")
    bindings = [at for at, call in enumerate(drive.fleet.calls) if isinstance(call.operation, SetBinding)]
    assert bindings[0] < kinds.index("Announce") < last < bindings[-1] < kinds.index("LeaveRelay")


def test_a_guest_without_any_is_not_asked() -> None:
    drive = tracking()
    drive.fleet.hosts[SOURCE].port_connections = set()
    assert reported(drive).connections == Connections(taken=0)
    assert puts(drive) == []


@pytest.mark.parametrize("operation", [ReadPortConnections, PutPortConnections])
@pytest.mark.parametrize("fault", [faults.refusal, faults.lost_answer])
def test_that_it_cannot_be_done_is_noted_and_no_more(operation: type, fault: Callable[..., Fault]) -> None:
    drive = tracking()
    drive.fleet.faults.append(fault(faults.at_operation(operation), times=1000))
    assert_only_noted(drive, NOTE)


def test_what_the_guest_does_not_tell_is_noted() -> None:
    drive = tracking()

    def silent(_fleet: object, _call: object) -> None:
        raise Instead(PutOutcome(taken=1, refused=1, why="it is silent"))

    drive.fleet.faults.append(Fault(faults.at_operation(PutPortConnections), silent, times=1000))
    report = reported(drive)
    assert report.connections == Connections(taken=1, refused=1)
    assert report.notes == ["Of the connections of the guest's ports of OVN's: 1 connection, 1 refused: it is silent"]


def test_a_destination_that_is_silent_holds_nothing_up_for_long() -> None:
    drive = tracking()
    put = faults.at_operation(PutPortConnections)
    landed = lambda call: put(call) and drive.fleet.running(WEB) == [DESTINATION]  # noqa: E731
    drive.fleet.faults.append(faults.outage(landed, seconds=30))
    ending = drive.run()
    assert ending.exit is Exit.DONE
    (taken,) = (record for record in ending.records if record.name == "take-port-connections")
    assert taken.end - taken.start <= _LAST_OF_PORTS_S + 0.1
    assert NOTE in taken.detail


def test_a_controller_that_dies_meanwhile_is_followed_by_one_that_goes_on() -> None:
    drive = tracking()
    put = faults.at_operation(PutPortConnections)
    landed = lambda call: put(call) and drive.fleet.running(WEB) == [DESTINATION]  # noqa: E731
    drive.fleet.faults.append(faults.crash(landed))
    with pytest.raises(faults.Crash):
        drive.run()
    report = reported(drive)
    assert report.connections == Connections(taken=2)
    assert drive.fleet.hosts[DESTINATION].port_connections == {STREAM, DATAGRAMS}


def test_a_source_that_has_let_go_of_the_port_has_nothing_to_tell() -> None:
    drive = tracking()
    gone = faults.refusal(faults.at_operation(ReadPortConnections), code="relay-not-joined", times=1000)
    drive.fleet.faults.append(gone)
    report = reported(drive)
    assert (report.connections, report.notes) == (None, [])


def test_a_copy_that_is_aborted_has_asked_the_guest_for_nothing() -> None:
    drive = tracking()

    def abort() -> None:
        drive.abort = True

    drive.fleet.faults.append(faults.doing(faults.at_operation(PutPortConnections), abort, after=True))
    assert drive.run().exit is Exit.ABORTED
    assert {each.wait_s for each in puts(drive)} == {0.0}
    assert all(each.mac == MAC for each in puts(drive))


def test_the_guest_is_asked_as_it_resumes_whatever_the_controller_does() -> None:
    drive = tracking()
    put = faults.at_operation(PutPortConnections)
    asking = lambda call: put(call) and call.operation.wait_s  # noqa: E731
    drive.fleet.faults.append(faults.refusal(asking, times=1000))
    assert drive.run().exit is Exit.DONE
    assert drive.fleet.hosts[DESTINATION].port_connections == {STREAM, DATAGRAMS}
