"""The wire is lost in the pause: the guest is held at the source until it is certain where it goes on."""

from collections.abc import Callable

import pytest

from fakes import faults
from fakes.contract import Snapshot, is_uncertain, moved, unkept
from fakes.fleet import Call, Fault, Inconsistent
from fakes.matrix import plan_of, second_migration
from fakes.samples import CASES, DESTINATION, GUEST, SOURCE, Case, Drive, make_fleet
from vferry.host.api import Concede, ReadMigration, Resume, ShowGuest, StopGateway
from vferry.migration.conductor import Conductor
from vferry.migration.settling import Settling
from vferry.migration.stepper import Ending
from vferry.migration.whereabouts import Verdict
from vferry.model.guest import GuestState
from vferry.model.problem import Exit, Problem
from vferry.plan.plan import GuestSide, NetworkMode

SWITCH = Case(NetworkMode.SWITCH, GuestSide.ADDRESSES)
VIRTIO = Case(NetworkMode.VIRTIO, GuestSide.ADDRESSES)
HELD = ("held-running", "held-paused", "held-gone", "held-late")


def held(torn: str, case: Case = SWITCH) -> Drive:
    fleet = make_fleet(case)
    fleet.pace.torn = torn
    return Drive(fleet, plan_of(case))


def recover(drive: Drive, keeper: str | None = None) -> Ending:
    """What `operation recover` does, with `--guest-is-at` where a keeper is named."""

    async def act(conductor: Conductor) -> Ending:
        hosts = [drive.fleet.host(name, drive.plan.operation, drive.epoch) for name in (SOURCE, DESTINATION)]
        settling = Settling(drive.plan, *hosts)
        if keeper is not None:
            await settling.keep_at(keeper)
        if await settling.settle() is Verdict.DESTINATION:
            return await conductor.finish()
        return await conductor.take_back(Problem("recovered", "it was undone", exit=Exit.UNDONE))

    return drive.repair(act)


def heal(drive: Drive) -> None:
    drive.fleet.faults.clear()
    for host in drive.fleet.hosts.values():
        host.down_until = 0.0


def kinds(drive: Drive) -> list[tuple[type, str]]:
    return [(type(call.operation), call.host) for call in drive.fleet.calls]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_guest_that_runs_at_the_destination_stays_there(case: Case) -> None:
    drive = held("held-running", case)
    assert drive.run().exit is Exit.DONE
    assert moved(drive.fleet, drive.plan) == []
    assert GUEST not in drive.fleet.hosts[SOURCE].machines
    assert (Resume, SOURCE) not in kinds(drive)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("torn", ["held-paused", "held-gone"])
def test_a_guest_that_does_not_goes_on_at_the_source(case: Case, torn: str) -> None:
    drive = held(torn, case)
    before = Snapshot.of(drive.fleet)
    ending = drive.run()
    assert (ending.exit, ending.notes) == (Exit.UNDONE, ())
    assert before.differences(drive.fleet) == []
    assert (Resume, SOURCE) not in kinds(drive), "libvirt lets it go on"


@pytest.mark.parametrize("late_s", [0.005 * step for step in range(20)])
def test_a_late_finish_comes_before_the_destination_is_asked_or_never(late_s: float) -> None:
    drive = held("held-late")
    drive.fleet.pace.late_s = late_s
    assert drive.run().exit in (Exit.DONE, Exit.UNDONE)


def test_nothing_can_arrive_at_the_destination_before_it_is_asked() -> None:
    drive = held("held-late")
    drive.fleet.pace.late_s = 2.0
    assert drive.run().exit is Exit.UNDONE
    done = kinds(drive)
    stopped = done.index((StopGateway, DESTINATION))
    assert done.index((StopGateway, SOURCE)) > stopped
    assert (ShowGuest, DESTINATION) in done[stopped:]


@pytest.mark.parametrize("torn", HELD)
def test_where_the_destination_is_silent_the_guest_stays_held(torn: str) -> None:
    drive = held(torn)
    before = Snapshot.of(drive.fleet)
    drive.fleet.pace.late_s = 30.0
    drive.fleet.faults.append(faults.outage(faults.at_operation(ReadMigration), host=DESTINATION))
    ending = drive.run()
    assert (ending.exit, is_uncertain(ending)) == (Exit.OPERATOR, True)
    source = drive.fleet.hosts[SOURCE]
    assert source.machines[GUEST].state is GuestState.PAUSED
    assert source.gateways
    assert all(host.claims.all() for host in drive.fleet.hosts.values())
    assert unkept(drive, SWITCH, before, ending) == []
    with pytest.raises(Problem, match="nothing was resumed on a guess"):
        recover(drive)
    assert source.gateways
    heal(drive)
    there = drive.fleet.running(GUEST) == [DESTINATION]
    assert recover(drive).exit is (Exit.DONE if there else Exit.UNDONE)
    assert (moved(drive.fleet, drive.plan) if there else before.differences(drive.fleet)) == []


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize(("torn", "keeper"), [("held-running", DESTINATION), ("held-paused", SOURCE)])
def test_the_operators_word_is_made_true(torn: str, keeper: str, *, silent: bool) -> None:
    drive = held(torn)
    before = Snapshot.of(drive.fleet)
    drive.fleet.faults.append(faults.outage(faults.at_operation(ReadMigration), host=DESTINATION))
    assert drive.run().exit is Exit.OPERATOR
    heal(drive)
    other = SOURCE if keeper == DESTINATION else DESTINATION
    if silent:
        drive.fleet.hosts[other].down_until = 1e9
        assert recover(drive, keeper).exit is Exit.OPERATOR, "the other host is not put right"
        assert drive.fleet.running(GUEST) == [keeper]
        heal(drive)
    assert recover(drive, keeper).exit is (Exit.DONE if keeper == DESTINATION else Exit.UNDONE)
    assert (moved(drive.fleet, drive.plan) if keeper == DESTINATION else before.differences(drive.fleet)) == []


def test_a_word_that_is_not_true_is_refused() -> None:
    drive = held("held-running")
    drive.fleet.faults.append(faults.outage(faults.at_operation(ReadMigration), host=DESTINATION))
    drive.run()
    heal(drive)
    with pytest.raises(Problem) as caught:
        recover(drive, SOURCE)
    assert caught.value.code == "guest-running"
    assert drive.fleet.hosts[SOURCE].machines[GUEST].state is GuestState.PAUSED


def test_a_source_that_is_silent_when_the_guest_is_found_is_cleared_when_it_answers() -> None:
    """It comes back while the way back to the VF is made: its gateway may not end before the guest there has."""
    drive = held("held-running")
    drive.fleet.faults.append(faults.outage(faults.at_operation(Concede, SOURCE), seconds=70))
    assert drive.run().exit is Exit.DONE
    assert moved(drive.fleet, drive.plan) == []


When = Callable[[Call], bool]
FAULTS: dict[str, Callable[[Drive, When], Fault]] = {
    "refused": lambda _drive, when: faults.refusal(when),
    "refused-after-the-effect": lambda _drive, when: faults.refusal(when, after=True),
    "request-lost": lambda _drive, when: faults.lost_answer(when),
    "answer-lost": lambda _drive, when: faults.lost_answer(when, after=True),
    "abort": lambda drive, when: faults.doing(when, lambda: setattr(drive, "abort", True)),
    "source-silent-for-a-while": lambda _drive, when: faults.outage(when, seconds=20, host=SOURCE),
    "destination-silent-for-a-while": lambda _drive, when: faults.outage(when, seconds=20, host=DESTINATION),
    "source-silent": lambda _drive, when: faults.outage(when, host=SOURCE),
    "destination-silent": lambda _drive, when: faults.outage(when, host=DESTINATION),
    "source-silent-beyond-patience": lambda _drive, when: faults.outage(when, seconds=200, host=SOURCE),
    "destination-silent-beyond-patience": lambda _drive, when: faults.outage(when, seconds=200, host=DESTINATION),
    "controller-dies": lambda _drive, when: faults.crash(when),
    "controller-dies-after-the-effect": lambda _drive, when: faults.crash(when, after=True),
}


def run_through(drive: Drive) -> Ending:
    for _ in range(5):
        try:
            return drive.run()
        except faults.Crash:
            continue
    raise AssertionError("it never ends")


def violations(torn: str, case: Case, fault: str, number: int) -> list[str]:
    drive = held(torn, case)
    before = Snapshot.of(drive.fleet)
    drive.fleet.faults.append(FAULTS[fault](drive, faults.at(number)))
    try:
        ending = run_through(drive)
        wrong = unkept(drive, case, before, ending)
        heal(drive)
        drive.abort = False
        if ending.exit is Exit.OPERATOR:
            again = recover(drive)
            wrong += [] if again.exit in (Exit.DONE, Exit.UNDONE) else [f"recovered: {again.exit!r}, {again.notes}"]
        drive.fleet.pace.torn = None
        return wrong or second_migration(drive, case)
    except (Inconsistent, Problem) as error:
        return [str(error)]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("torn", HELD)
@pytest.mark.parametrize("case", [SWITCH, VIRTIO], ids=str)
def test_whatever_fails_besides_it_never_runs_on_both(case: Case, torn: str, fault: str) -> None:
    """The fleet itself says so after each call; and what is left can always be recovered."""
    whole = held(torn, case)
    whole.run()
    found = {call.number: violations(torn, case, fault, call.number) for call in whole.fleet.calls}
    assert {number: wrong for number, wrong in found.items() if wrong} == {}
