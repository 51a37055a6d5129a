"""The NIC of a running guest goes from anything to anything: it always has its network, whatever fails on the way."""

from collections.abc import Callable
from functools import cache, partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes import faults, invariants
from fakes.contract import Snapshot
from fakes.fleet import Call, Fault, Fleet
from fakes.nic_moves import ALIAS, CASES, NicCase, NicDrive, make_fleet, make_plan, shut_down, start, wrong_there
from fakes.samples import SOURCE
from vferry.host.api import ReadDefinition, ShowGuest
from vferry.migration.stepper import Ending
from vferry.model.problem import Exit, Problem
from vferry.network import nic
from vferry.plan.nic_plan import NicPlan, NicTarget

BY_VF = "plug-vf guest-to-vf filter-to-vf unplug-standby"
TO_RELAY = "configure-relay-vf join-relay plug-standby guest-to-standby filter-to-relay settle-vf"
GOLDEN = {
    NicCase(NicTarget.VF, NicTarget.VIRTIO, manager="networkd"): (
        "quiet-guest plug-standby guest-to-standby filter-to-bridge define unplug-vf",
        "settle-guest wipe-vf",
    ),
    NicCase(NicTarget.VF, NicTarget.RELAY): (
        f"{TO_RELAY} define unplug-vf",
        "wipe-vf",
    ),
    NicCase(NicTarget.VIRTIO, NicTarget.VF): (
        "configure-vf plug-vf guest-to-vf filter-to-vf define unplug-standby",
        "",
    ),
    NicCase(NicTarget.RELAY, NicTarget.VF, manager="networkd"): (
        "configure-vf open-vf quiet-guest plug-vf guest-to-vf filter-to-vf define unplug-standby",
        "settle-guest leave-relay wipe-relay-vf",
    ),
    NicCase(NicTarget.RELAY, NicTarget.VIRTIO): (
        f"configure-vf open-vf {BY_VF} plug-standby guest-to-standby filter-to-bridge define unplug-vf",
        "leave-relay wipe-relay-vf wipe-vf",
    ),
    NicCase(NicTarget.VIRTIO, NicTarget.RELAY, manager="networkd"): (
        f"configure-vf quiet-guest {BY_VF} {TO_RELAY} define unplug-vf",
        "settle-guest wipe-vf",
    ),
    NicCase(NicTarget.VF, NicTarget.RELAY, switched=True): (
        "join-relay plug-standby guest-to-standby filter-to-relay define unplug-vf",
        "wipe-vf",
    ),
    NicCase(NicTarget.RELAY, NicTarget.VF, switched=True): (
        "configure-vf plug-vf guest-to-vf filter-to-vf define unplug-standby",
        "leave-relay",
    ),
}
EACH = pytest.mark.parametrize("case", CASES, ids=str)
Make = Callable[[Callable[[Call], bool]], Fault]


@cache
def plan_of(case: NicCase) -> NicPlan:
    return make_plan(make_fleet(case), case)


@cache
def clean_calls(case: NicCase) -> tuple[Call, ...]:
    drive = NicDrive(make_fleet(case), plan_of(case))
    assert drive.run().exit is Exit.DONE
    return tuple(drive.fleet.calls)


def run_through(drive: NicDrive) -> Ending:
    for _ in range(9):
        try:
            return drive.run()
        except faults.Crash:
            continue
    raise AssertionError("it never ends")


@EACH
def test_the_nic_is_moved_and_nothing_is_left(case: NicCase) -> None:
    drive = NicDrive(make_fleet(case), plan_of(case))
    ending = drive.run()
    assert (ending.exit, ending.notes, ending.at_destination) == (Exit.DONE, (), True)
    assert wrong_there(drive.fleet, case, drive.plan) == []


PASSING: dict[str, Make] = {
    "refused": faults.refusal,
    "refused-after-the-effect": lambda when: faults.refusal(when, after=True),
    "request-lost": faults.lost_answer,
    "answer-lost": lambda when: faults.lost_answer(when, after=True),
    "script-fails": faults.failing_script,
    "silent-for-a-while": lambda when: faults.outage(when, seconds=20),
    "silent-for-a-while-after-the-effect": lambda when: faults.outage(when, after=True, seconds=20),
}


@EACH
@pytest.mark.parametrize("fault", PASSING)
def test_what_fails_is_undone_or_overcome(case: NicCase, fault: str) -> None:
    for number in range(1, len(clean_calls(case)) - 1):  # but the claim and its release
        drive = NicDrive(make_fleet(case), plan_of(case))
        before = Snapshot.of(drive.fleet)
        drive.fleet.faults.append(PASSING[fault](faults.at(number)))
        ending = drive.run()
        spot = (number, clean_calls(case)[number].operation, ending)
        if ending.exit is Exit.UNDONE:
            assert before.differences(drive.fleet) == [], spot
            assert not ending.at_destination, spot
            continue
        if ending.exit is Exit.OPERATOR:  # something of the rest
            assert ending.at_destination, spot
            assert ending.notes, spot
            drive.fleet.faults.clear()
            ending = drive.repair(ending)
        assert ending.exit is Exit.DONE, spot
        assert wrong_there(drive.fleet, case, drive.plan) == [], spot


@EACH
@pytest.mark.parametrize("after", [False, True], ids=["before-the-effect", "after-the-effect"])
def test_a_host_that_is_silent_for_long_is_put_right_when_it_answers(case: NicCase, *, after: bool) -> None:
    for number in range(1, len(clean_calls(case)) - 1):
        drive = NicDrive(make_fleet(case), plan_of(case))
        before = Snapshot.of(drive.fleet)
        drive.fleet.faults.append(faults.outage(faults.at(number), after=after))
        ending = drive.run()
        assert (ending.exit, bool(ending.notes)) == (Exit.OPERATOR, True), number
        drive.fleet.hosts[SOURCE].down_until = 0.0
        again = drive.repair(ending)
        if ending.at_destination:
            assert (again.exit, wrong_there(drive.fleet, case, drive.plan)) == (Exit.DONE, []), number
        else:
            assert (again.exit, before.differences(drive.fleet)) == (Exit.UNDONE, []), number


@EACH
@pytest.mark.parametrize("after", [False, True], ids=["before-the-effect", "after-the-effect"])
def test_a_controller_that_dies_is_taken_over(case: NicCase, *, after: bool) -> None:
    for call in clean_calls(case)[1:-1]:
        drive = NicDrive(make_fleet(case), plan_of(case))
        drive.fleet.faults.append(faults.crash(faults.at(call.number), after=after))
        ending = run_through(drive)
        assert (ending.exit, ending.notes) == (Exit.DONE, ()), call
        assert wrong_there(drive.fleet, case, drive.plan) == [], call


@EACH
@pytest.mark.parametrize("started", [True, False], ids=["started-anew", "off"])
def test_a_guest_that_is_off_meanwhile_has_what_it_is_defined_with(case: NicCase, *, started: bool) -> None:
    """Whatever its devices are called then, none of them is taken from it."""
    for call in clean_calls(case)[:-1]:
        if isinstance(call.operation, (ShowGuest, ReadDefinition)):
            continue  # what is asked right after that cannot know
        drive = NicDrive(make_fleet(case), plan_of(case))
        before, fleet = Snapshot.of(drive.fleet), drive.fleet
        fleet.check = lambda: None  # type: ignore[method-assign] # libvirt sets its VF up whatever is under way
        when = faults.at(call.number)
        fleet.faults.append(faults.doing(when, partial(shut_down, fleet), after=True))
        if started:
            fleet.faults.append(faults.doing(when, partial(start, fleet, case), after=True))
        ending = drive.run()
        if not started:
            start(fleet, case)
        wrong = wrong_there(fleet, case, drive.plan) if ending.exit is Exit.DONE else before.differences(fleet)
        assert (ending.exit in (Exit.DONE, Exit.UNDONE), wrong) == (True, []), (call, ending)
        assert invariants.broken(fleet.hosts.values(), fleet.never_dark) == [], call


SPOTS = st.lists(
    st.tuples(
        st.sampled_from(["refused", "lost", "silent", "long-silent", "crash", "script", "kept"]),
        st.integers(0, 60),
        st.booleans(),
    ),
    max_size=5,
)


def fault_of(fleet: Fleet, kind: str, number: int, *, after: bool) -> Fault:
    when = faults.at(number)
    match kind:
        case "refused":
            return faults.refusal(when, after=after)
        case "lost":
            return faults.lost_answer(when, after=after)
        case "silent":
            return faults.outage(when, after=after, seconds=30)
        case "long-silent":
            return faults.outage(when, after=after, seconds=300)
        case "crash":
            return faults.crash(when, after=after)
        case "script":
            return faults.failing_script(lambda call: call.number >= number)
    return faults.doing(when, lambda: fleet.held.add((ALIAS, "ua-vferry-vf-525400123456")[number % 2]))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=st.sampled_from(CASES), spots=SPOTS)
def test_any_sequence_of_faults_leaves_a_guest_with_its_network(
    case: NicCase, spots: list[tuple[str, int, bool]]
) -> None:
    drive = NicDrive(make_fleet(case), plan_of(case))
    before = Snapshot.of(drive.fleet)
    drive.fleet.faults.extend(fault_of(drive.fleet, kind, number, after=after) for kind, number, after in spots)
    try:
        ending = run_through(drive)
    except Problem:  # its claim or its release: it is asked for again
        drive.fleet.faults.clear()
        drive.fleet.hosts[SOURCE].down_until = 0.0
        ending = run_through(drive)
    if ending.exit is Exit.OPERATOR:
        drive.fleet.faults.clear()
        drive.fleet.held.clear()
        drive.fleet.hosts[SOURCE].down_until = 0.0
        ending = drive.repair(ending)
    assert ending.exit in (Exit.DONE, Exit.UNDONE)
    wrong = wrong_there(drive.fleet, case, drive.plan) if ending.at_destination else before.differences(drive.fleet)
    assert wrong == []


def test_a_plan_is_made_again_alike() -> None:
    assert make_plan(make_fleet(CASES[1]), CASES[1]) == plan_of(CASES[1])


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_the_steps_in_their_order(case: NicCase) -> None:
    move = plan_of(case).move
    assert move is not None
    steps = nic.stages(move)
    assert tuple(" ".join(step.name for step in each) for each in (steps.before, steps.after)) == GOLDEN[case]
    assert all(step.undo for step in steps.before)
    assert len({step.phase for step in steps.before}) == 1, "what cannot be taken back leaves all that was before it"
    assert len({step.name for step in steps.all}) == len(steps.all), "each is said in its own words"
    assert not any(step.undo for step in steps.after)
