"""The controller dies at every call of every migration; the next one, with the same journal, brings it to an end."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes import faults
from fakes.contract import Snapshot, healed, moved, unkept
from fakes.fleet import Fault
from fakes.matrix import clean_calls, plan_of, second_migration
from fakes.samples import CASES, DESTINATION, GUEST, SOURCE, Case, Drive, make_fleet, make_plan
from vferry.host.api import PlugVf, ReadMigration, StartMigration
from vferry.migration.conductor import Conductor
from vferry.migration.stepper import Ending
from vferry.model.problem import Exit, Problem
from vferry.plan.plan import GuestSide, NetworkMode

MOST_CRASHES = 50


def run_through(drive: Drive) -> Ending:
    """Starts a new controller whenever one dies."""
    for _ in range(MOST_CRASHES):
        try:
            return drive.run()
        except faults.Crash:
            continue
    raise AssertionError("it never ends")


@pytest.mark.parametrize("after", [False, True], ids=["before-the-effect", "after-the-effect"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_controller_that_dies_is_taken_over(case: Case, *, after: bool) -> None:
    for call in clean_calls(case):
        fleet = make_fleet(case)
        drive = Drive(fleet, plan_of(case))
        fleet.faults.append(faults.crash(faults.at(call.number), after=after))
        ending = run_through(drive)
        assert (ending.exit, ending.notes) == (Exit.DONE, ()), call
        assert moved(fleet, drive.plan) == [], call
        assert second_migration(drive, case) == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_controllers_that_die_one_after_the_other_get_it_done_together(case: Case) -> None:
    fleet = make_fleet(case)
    drive = Drive(fleet, plan_of(case))
    fleet.faults.extend(faults.crash(faults.at(number), after=True) for number in range(16, 400, 16))
    ending = run_through(drive)
    assert ending.exit is Exit.DONE
    assert drive.epoch >= 2
    assert moved(fleet, drive.plan) == []


@pytest.mark.parametrize("case", [case for case in CASES if case.has_vf], ids=str)
def test_a_controller_that_dies_while_it_undoes_is_taken_over(case: Case) -> None:
    def prepared() -> Drive:
        fleet = make_fleet(case)
        fleet.pace.fails_with = "out of memory"
        return Drive(fleet, plan_of(case))

    whole = prepared()
    assert whole.run().exit is Exit.UNDONE
    for call in whole.fleet.calls:
        for after in (False, True):
            drive = prepared()
            before = Snapshot.of(drive.fleet)
            drive.fleet.faults.append(faults.crash(faults.at(call.number), after=after))
            ending = run_through(drive)
            assert ending.exit is Exit.UNDONE, call
            assert before.differences(drive.fleet) == [], call


def test_what_has_ended_is_not_done_again() -> None:
    case = CASES[1]
    fleet = make_fleet(case)
    drive = Drive(fleet, plan_of(case))
    fleet.faults.append(faults.crash(faults.at_operation(PlugVf, DESTINATION)))
    run_through(drive)
    assert len(drive.journal.worked) == len(set(drive.journal.worked))
    assert sum(isinstance(call.operation, StartMigration) for call in fleet.calls) == 1


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_abort_that_comes_while_no_controller_lives_does_not_undo_a_guest_that_has_moved(case: Case) -> None:
    fleet = make_fleet(case)
    drive = Drive(fleet, plan_of(case))
    looks = faults.at_operation(ReadMigration)
    fleet.pace.copy_s = 0.0
    fleet.faults.append(faults.crash(looks))
    with pytest.raises(faults.Crash):
        drive.run()
    drive.abort = True
    assert drive.run().exit is Exit.DONE
    assert moved(fleet, drive.plan) == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_abort_that_comes_while_no_controller_lives_ends_a_copy_that_goes_on(case: Case) -> None:
    fleet = make_fleet(case)
    drive = Drive(fleet, plan_of(case))
    before = Snapshot.of(fleet)
    fleet.pace.copy_s = 100_000
    fleet.faults.append(faults.crash(faults.at_operation(ReadMigration)))
    with pytest.raises(faults.Crash):
        drive.run()
    drive.abort = True
    assert drive.run().exit is Exit.ABORTED
    assert before.differences(fleet) == []


def test_nothing_secret_is_in_the_journal() -> None:
    case = CASES[1]
    drive = Drive(make_fleet(case), plan_of(case))
    drive.run()
    assert not any(b"token-" in kept for kept in drive.journal.kept.values())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_taking_back_works_from_wherever_it_stopped(case: Case) -> None:
    """As after an undo that was not complete: everything before the copy is taken back, done or not."""
    resumed = next(call.number for call in clean_calls(case) if isinstance(call.operation, StartMigration))
    for number in range(resumed):
        fleet = make_fleet(case)
        drive = Drive(fleet, plan_of(case))
        before = Snapshot.of(fleet)
        fleet.faults.append(faults.crash(faults.at(number), after=True))
        with pytest.raises(faults.Crash):
            drive.run()
        why = Problem("recovered", "it was undone", exit=Exit.UNDONE)
        ending = drive.repair(lambda conductor: conductor.take_back(why))  # noqa: B023 - called at once
        assert (ending.exit, ending.notes) == (Exit.UNDONE, ()), number
        assert before.differences(fleet) == [], number
        assert drive.repair(lambda conductor: conductor.take_back(why)).exit is Exit.UNDONE  # noqa: B023


@pytest.mark.parametrize("case", CASES, ids=str)
def test_finishing_works_from_wherever_it_stopped(case: Case) -> None:
    calls = clean_calls(case)
    started = next(call.number for call in calls if isinstance(call.operation, StartMigration))
    for call in calls[started + 1 :]:
        fleet = make_fleet(case)
        drive = Drive(fleet, plan_of(case))
        fleet.faults.append(faults.crash(faults.at(call.number), after=True))
        with pytest.raises(faults.Crash):
            drive.run()
        if fleet.running(GUEST) != [DESTINATION]:
            continue
        ending = drive.repair(Conductor.finish)
        assert (ending.exit, ending.notes) == (Exit.DONE, ()), call
        assert moved(fleet, drive.plan) == [], call


Spot = tuple[str, int, bool, int]

SPOTS = st.lists(
    st.tuples(
        st.sampled_from(["refused", "lost", "silent", "long-silent", "crash", "script", "abort", "kept"]),
        st.integers(0, 120),
        st.booleans(),
        st.integers(0, 1),
    ),
    max_size=6,
)


def fault_of(drive: Drive, spot: Spot) -> Fault:
    kind, number, after, which = spot
    when, host = faults.at(number), (SOURCE, DESTINATION)[which]
    match kind:
        case "refused":
            return faults.refusal(when, after=after)
        case "lost":
            return faults.lost_answer(when, after=after)
        case "silent":
            return faults.outage(when, after=after, host=host, seconds=30)
        case "long-silent":
            return faults.outage(when, after=after, host=host, seconds=300)
        case "crash":
            return faults.crash(when, after=after)
        case "script":
            return faults.failing_script(lambda call: call.number >= number)
        case "abort":
            return faults.doing(when, lambda: setattr(drive, "abort", True))
    aliases = ["ua-vf", "ua-vferry-standby-525400123456", "ua-vferry-vf-525400123456"]
    return faults.doing(when, lambda: drive.fleet.held.add(aliases[number % 3]))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=st.sampled_from(CASES), torn=st.sampled_from([None, None, "source", "both", "destination"]), spots=SPOTS)
def test_any_sequence_of_faults_keeps_the_contract(case: Case, torn: str | None, spots: list[Spot]) -> None:
    fleet = make_fleet(case)
    drive = Drive(fleet, plan_of(case))
    before = Snapshot.of(fleet)
    fleet.pace.torn = torn
    if torn == "destination":
        before.hosts[DESTINATION]["definitions"].pop(GUEST, None)
    fleet.faults.extend(fault_of(drive, spot) for spot in spots)
    ending = run_through(drive)
    assert unkept(drive, case, before, ending) == []
    fleet.pace.torn = None
    assert healed(drive, before, ending) == []
    assert second_migration(drive, case) == []


def test_a_plan_is_made_again_alike() -> None:
    case = Case(NetworkMode.SWITCH, GuestSide.ADDRESSES)
    assert make_plan(make_fleet(case), case) == plan_of(case)
