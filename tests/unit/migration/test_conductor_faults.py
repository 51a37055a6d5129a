"""One fault at every call of every migration: whatever fails, the guest survives and the ending says the truth."""

from collections.abc import Callable

import pytest

from fakes import faults
from fakes.contract import Snapshot, healed, is_uncertain, moved, unkept
from fakes.fleet import Call, Fault, Inconsistent
from fakes.matrix import clean_calls, plan_of, second_migration
from fakes.samples import CASES, DESTINATION, GUEST, SOURCE, Case, Drive, make_fleet
from vferry.host.api import ReclaimFree, ReturnFree
from vferry.migration.stepper import Ending
from vferry.model.problem import Exit

When = Callable[[Call], bool]
Make = Callable[[Drive, When], Fault]

# Faults that are over after one call, or soon: the migration must end well or be undone.
PASSING: dict[str, Make] = {
    "refused": lambda _drive, when: faults.refusal(when),
    "refused-after-the-effect": lambda _drive, when: faults.refusal(when, after=True),
    "request-lost": lambda _drive, when: faults.lost_answer(when),
    "answer-lost": lambda _drive, when: faults.lost_answer(when, after=True),
    "script-fails": lambda _drive, when: faults.failing_script(when),
    "silent-for-a-while": lambda _drive, when: faults.outage(when, seconds=20),
    "silent-for-a-while-after-the-effect": lambda _drive, when: faults.outage(when, after=True, seconds=20),
    "source-silent-for-a-while": lambda _drive, when: faults.outage(when, seconds=20, host=SOURCE),
    "destination-silent-for-a-while": lambda _drive, when: faults.outage(when, seconds=20, host=DESTINATION),
    "abort": lambda drive, when: faults.doing(when, lambda: setattr(drive, "abort", True)),
}

# Faults that keep a host from being put right: the operator may be needed.
LASTING: dict[str, Make] = {
    "source-silent": lambda _drive, when: faults.outage(when, host=SOURCE),
    "destination-silent": lambda _drive, when: faults.outage(when, host=DESTINATION),
    "source-silent-after-the-effect": lambda _drive, when: faults.outage(when, after=True, host=SOURCE),
    "destination-silent-after-the-effect": lambda _drive, when: faults.outage(when, after=True, host=DESTINATION),
    "silent-beyond-patience": lambda _drive, when: faults.outage(when, seconds=200),
}


def run_with(case: Case, make: Make, number: int) -> tuple[Drive, Snapshot, Ending]:
    fleet = make_fleet(case)
    drive = Drive(fleet, plan_of(case))
    before = Snapshot.of(fleet)
    fleet.faults.append(make(drive, faults.at(number)))
    return drive, before, drive.run()


def matrix(case: Case, make: Make, *, passing: bool) -> list[str]:
    """The violations of the contract with the fault at each call in turn."""
    found = []
    for call in clean_calls(case):
        wrong = []
        try:
            drive, before, ending = run_with(case, make, call.number)
            wrong += unkept(drive, case, before, ending)
            if passing and not ending.at_destination and ending.exit is Exit.OPERATOR:
                wrong.append(f"uncertain: {is_uncertain(ending)}, needs the operator for {ending.notes}")
            wrong += healed(drive, before, ending)
            wrong = wrong or second_migration(drive, case)
        except Inconsistent as error:
            wrong.append(str(error))
        found += [f"{call.number} {type(call.operation).__name__}@{call.host}: {each}" for each in wrong]
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_undone_or_overcome(case: Case, fault: str) -> None:
    assert matrix(case, PASSING[fault], passing=True) == []


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("fault", LASTING)
def test_a_fault_that_lasts_leaves_the_guest_alive_and_the_operator_told(case: Case, fault: str) -> None:
    assert matrix(case, LASTING[fault], passing=False) == []


@pytest.mark.parametrize("makes_up", [True, False])
def test_memory_that_its_balloon_keeps_is_the_guest_s_again_before_a_migration_ends(makes_up: bool) -> None:  # noqa: FBT001
    """libvirt fails while the balloon has it; without `makes_up`, so does the first attempt to give it back."""
    case = next(case for case in CASES if case.reclaims)
    fleet = make_fleet(case)
    drive = Drive(fleet, plan_of(case))
    before = Snapshot.of(fleet)
    fleet.faults.append(faults.squeezing(faults.at_operation(ReclaimFree)))
    if not makes_up:
        fleet.faults.append(faults.refusal(faults.at_operation(ReturnFree)))
    ending = drive.run()
    assert ending.exit is (Exit.UNDONE if makes_up else Exit.OPERATOR)
    assert fleet.machine(GUEST)[1].squeezed is not makes_up
    assert unkept(drive, case, before, ending) == []
    assert healed(drive, before, ending) == []
    assert not fleet.machine(GUEST)[1].squeezed
    assert second_migration(drive, case) == []


def test_a_controller_that_dies_while_the_balloon_has_memory_is_followed_by_one_that_has_it_given_back() -> None:
    case = next(case for case in CASES if case.reclaims)
    fleet = make_fleet(case)
    drive = Drive(fleet, plan_of(case))

    def squeeze_and_die() -> None:
        fleet.machine(GUEST)[1].squeezed = True
        raise faults.Crash

    fleet.faults.append(faults.doing(faults.at_operation(ReclaimFree), squeeze_and_die))
    with pytest.raises(faults.Crash):
        drive.run()
    assert drive.run().exit is Exit.DONE
    assert moved(fleet, drive.plan) == []
