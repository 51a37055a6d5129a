"""What is asked of a copy before libvirt is at it, and while it goes on."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from fakes import faults
from fakes.contract import Snapshot
from fakes.fleet import Call, Fault, Fleet, Instead
from fakes.samples import GUEST, OPERATION, SOURCE, Case, Drive, make_fleet, make_plan
from vferry.host.api import AbortMigration, Done, LimitMigration, Operation, ReadMigration, StartMigration
from vferry.model.problem import Exit
from vferry.plan.plan import GuestSide, NetworkMode, TransferPlan

SWITCH = Case(NetworkMode.SWITCH, GuestSide.ADDRESSES)
BANDWIDTH = 1_000_000


@pytest.fixture
def drive() -> Drive:
    fleet = make_fleet(SWITCH)
    fleet.pace.copy_s = 5.0
    return Drive(fleet, make_plan(fleet, SWITCH))


def asked(drive: Drive, kind: type[Operation[Any]]) -> list[Operation[Any]]:
    return [call.operation for call in drive.fleet.calls if isinstance(call.operation, kind)]


def limited(drive: Drive) -> int | None:
    return drive.fleet.hosts[SOURCE].jobs[OPERATION].bandwidth


def before_it_ends(drive: Drive, look: Callable[[], object]) -> None:
    """Looks before the claims are given back, and with them what is known of the migration."""
    drive.fleet.faults.append(faults.doing(faults.at_operation(ReadMigration, SOURCE), look))
    drive.fleet.faults[-1].times = 1_000


@pytest.mark.parametrize("begin_s", [0.0, 2.0])
def test_a_bandwidth_that_is_asked_for_in_the_middle_of_the_copy_holds_from_then_on(
    drive: Drive, begin_s: float
) -> None:
    drive.fleet.pace.begin_s = begin_s
    looks = faults.at_operation(ReadMigration)
    drive.fleet.faults.append(faults.doing(looks, lambda: setattr(drive, "bandwidth", BANDWIDTH), after=True))
    held: list[int | None] = []
    before_it_ends(drive, lambda: held.append(limited(drive)))
    assert drive.run().exit is Exit.DONE
    assert (held[0], held[-1]) == (None, BANDWIDTH)
    assert asked(drive, LimitMigration) == [LimitMigration(guest=GUEST, bandwidth=BANDWIDTH)], "once"


@pytest.mark.parametrize("planned", [None, BANDWIDTH, 5_000_000])
def test_a_copy_is_started_with_the_bandwidth_that_was_asked_for_before(drive: Drive, planned: int | None) -> None:
    drive.plan = structs.replace(drive.plan, transfer=TransferPlan(bandwidth=planned))
    drive.bandwidth = BANDWIDTH
    assert drive.run().exit is Exit.DONE
    (start,) = asked(drive, StartMigration)
    assert isinstance(start, StartMigration)
    assert start.bandwidth == BANDWIDTH
    assert asked(drive, LimitMigration) == [], "it holds already"


def test_a_controller_that_takes_over_does_not_know_with_what_it_was_started(drive: Drive) -> None:
    drive.fleet.faults.append(faults.crash(faults.at_operation(ReadMigration, SOURCE)))
    with pytest.raises(faults.Crash):
        drive.run()
    drive.bandwidth = BANDWIDTH
    assert drive.run().exit is Exit.DONE
    assert [start.bandwidth for start in asked(drive, StartMigration)] == [None, BANDWIDTH]  # type: ignore[attr-defined]
    assert asked(drive, LimitMigration) == [LimitMigration(guest=GUEST, bandwidth=BANDWIDTH)]


def test_a_bandwidth_that_cannot_be_set_is_tried_again_and_does_not_end_the_copy(drive: Drive) -> None:
    looks = faults.at_operation(ReadMigration)
    drive.fleet.faults.append(faults.doing(looks, lambda: setattr(drive, "bandwidth", BANDWIDTH), after=True))
    drive.fleet.faults.append(faults.refusal(faults.at_operation(LimitMigration), times=2))
    assert drive.run().exit is Exit.DONE
    assert len(asked(drive, LimitMigration)) == 3


def test_in_the_pause_no_bandwidth_is_set(drive: Drive) -> None:
    drive.fleet.pace.pause_s = 5.0
    jobs = drive.fleet.hosts[SOURCE].jobs

    def paused(call: Call) -> bool:
        return isinstance(call.operation, ReadMigration) and jobs[OPERATION].paused is not None

    drive.fleet.faults.append(faults.doing(paused, lambda: setattr(drive, "bandwidth", BANDWIDTH)))
    assert drive.run().exit is Exit.DONE
    assert asked(drive, LimitMigration) == []


def abort_at_start(drive: Drive) -> None:
    starts = faults.at_operation(StartMigration)
    drive.fleet.faults.append(faults.doing(starts, lambda: setattr(drive, "abort", True), after=True))


def test_an_abort_that_comes_before_libvirt_is_at_it_is_asked_for_again(drive: Drive) -> None:
    before = Snapshot.of(drive.fleet)
    drive.fleet.pace.begin_s = 1.0
    abort_at_start(drive)
    ending = drive.run()
    assert (ending.exit, ending.reason) == (Exit.ABORTED, "The migration was aborted on request")
    assert len(asked(drive, AbortMigration)) > 1
    assert before.differences(drive.fleet) == []


def unanswered(drive: Drive, times: int) -> None:
    """libvirt does not get at the migration so often when it is to be aborted."""

    def act(_fleet: Fleet, _call: Call) -> None:
        raise Instead(Done(changed=False))

    drive.fleet.faults.append(Fault(faults.at_operation(AbortMigration), act, times=times))


def test_the_deadline_ends_a_copy_that_libvirt_does_not_get_at_at_once(drive: Drive) -> None:
    before = Snapshot.of(drive.fleet)
    drive.plan = structs.replace(drive.plan, transfer=TransferPlan(deadline_s=2.0))
    unanswered(drive, 3)
    ending = drive.run()
    assert ending.exit is Exit.UNDONE
    assert "not copied within 2 s" in ending.reason
    assert before.differences(drive.fleet) == []


def test_what_was_cancelled_is_not_cancelled_again(drive: Drive) -> None:
    """QEMU takes a while to give up."""

    def act(_fleet: Fleet, _call: Call) -> None:
        raise Instead(Done())

    drive.fleet.faults.append(Fault(faults.at_operation(AbortMigration), act))
    drive.plan = structs.replace(drive.plan, transfer=TransferPlan(deadline_s=2.0))
    drive.run()
    assert len(asked(drive, AbortMigration)) == 1


@pytest.mark.parametrize("by", ["deadline", "abort"])
def test_a_guest_in_its_pause_is_not_taken_back_for_what_was_not_done_before(drive: Drive, by: str) -> None:
    drive.fleet.pace.pause_s = 5.0
    jobs, paused_at = drive.fleet.hosts[SOURCE].jobs, []

    def paused(call: Call) -> bool:
        return isinstance(call.operation, ReadMigration) and jobs[OPERATION].paused is not None

    drive.fleet.faults.append(faults.doing(paused, lambda: paused_at.append(len(asked(drive, AbortMigration)))))
    if by == "deadline":
        drive.plan = structs.replace(drive.plan, transfer=TransferPlan(deadline_s=2.0))
    else:
        abort_at_start(drive)
    unanswered(drive, 1_000)
    assert drive.run().exit is Exit.DONE
    assert paused_at == [len(asked(drive, AbortMigration))]


def test_the_deadline_counts_from_the_start_whoever_has_taken_over_since(drive: Drive) -> None:
    before = Snapshot.of(drive.fleet)
    drive.fleet.pace.copy_s = 100_000
    drive.plan = structs.replace(drive.plan, transfer=TransferPlan(deadline_s=10.0))
    drive.fleet.faults.append(faults.crash(faults.at_operation(ReadMigration, SOURCE)))
    with pytest.raises(faults.Crash):
        drive.run()
    job = drive.fleet.hosts[SOURCE].jobs[OPERATION]
    job.started -= 8.0  # go by without a controller
    ended: list[float] = []
    aborts = faults.at_operation(AbortMigration)
    drive.fleet.faults.append(faults.doing(aborts, lambda: ended.append(asyncio.get_running_loop().time())))
    ending = drive.run()
    assert ending.exit is Exit.UNDONE
    assert "not copied within 10 s" in ending.reason
    assert ended[0] - job.started == pytest.approx(10.0, abs=0.5)
    assert before.differences(drive.fleet) == []
