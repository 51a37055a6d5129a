"""The moves of NICs are operations: whatever they die of, they are seen, and recovered, there or back."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from msgspec import structs

from fakes import faults
from fakes.clock import run_virtually
from fakes.contract import Snapshot
from fakes.fleet import Call, Fleet
from fakes.nic_controller import Controller
from fakes.nic_moves import ALIAS, BETWEEN, CASES, OWN, WAYS, NicCase, make_fleet, shut_down, start, wrong_there
from fakes.samples import GUEST, MAC, SOURCE
from vferry.controller import locks, nic_driving, nic_moves, operations
from vferry.controller.nic_moves import Way
from vferry.controller.operations import INTERRUPTED
from vferry.host.api import ClaimResources, Define, JoinRelay, MoveFilter, ReleaseClaim, Session, SetVf
from vferry.model.host import NO_MAC
from vferry.model.problem import Exit, Problem
from vferry.model.report import Kind, Phase, Status
from vferry.plan.nic_definition import on_vf
from vferry.plan.nic_plan import NicTarget

RUNNING = CASES[1]
"""From a VF to the relay."""
OFF = tuple(NicCase(of, to) for of, to in (*WAYS, *BETWEEN))
BY_A_VF = tuple(NicCase(of, to) for of, to in BETWEEN)
SWITCHED = NicCase(NicTarget.VF, NicTarget.RELAY, switched=True)
EACH_OFF = pytest.mark.parametrize("case", OFF, ids=str)
EITHER = pytest.mark.parametrize("after", [False, True], ids=["before-the-effect", "after-the-effect"])
Make = Callable[..., Controller]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """New controllers, each with a fleet of its own; what they write need not last."""
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    number = iter(range(10_000))

    def made(case: NicCase, *, off: bool = False) -> Controller:
        directory = tmp_path / str(next(number))
        directory.mkdir()
        return Controller(directory, off_fleet(case) if off else make_fleet(case), monkeypatch)

    return made


def off_fleet(case: NicCase) -> Fleet:
    """The guest is off, and libvirt has taken its MAC from the VF that was passed through."""
    fleet = make_fleet(case)
    shut_down(fleet)
    if case.of is NicTarget.VF:
        own = fleet.hosts[SOURCE].function(OWN)
        own.settings = structs.replace(own.settings, mac=NO_MAC)
    return Fleet(fleet.hosts.values())


def killed_at(controller: Controller, number: int, to: NicTarget, *, after: bool) -> bool:
    """Whether the command got as far as that call, and was killed there."""
    controller.fleet.faults.append(faults.crash(faults.at(number), after=after))
    try:
        controller.move(to)
    except faults.Crash:
        return True
    finally:
        controller.fleet.faults.clear()
    return False


def each_death(make: Make, case: NicCase, *, after: bool, off: bool = False) -> Iterator[tuple[int, Controller]]:
    """Controllers that were killed at each call in turn, from the first that changes something."""
    for number in range(1000):
        controller = make(case, off=off)
        if not killed_at(controller, number, case.to, after=after):
            return
        if controller.shown():
            yield number, controller


@EITHER
@pytest.mark.parametrize("case", [*CASES[:4], *BY_A_VF, SWITCHED], ids=str)
def test_one_that_was_killed_is_shown_and_recovered(make: Make, case: NicCase, *, after: bool) -> None:
    deaths = 0
    for number, controller in each_death(make, case, after=after):
        deaths += 1
        (shown,) = controller.shown()
        assert (shown.status, shown.kind, shown.guest, shown.source, shown.mac, shown.to) == (
            INTERRUPTED,
            Kind.NIC,
            GUEST,
            SOURCE,
            MAC,
            case.to.value,
        )
        (report,) = controller.recover()
        assert (report.status, report.degraded, report.notes) == (Status.COMPLETED, None, []), number
        assert controller.stands() == [("completed", 0)], number
        folder = operations.find(controller.state, report.operation)
        assert wrong_there(controller.fleet, case, nic_moves.read(folder).plan) == [], number
        assert (controller.recover(), controller.kept(), controller.claims()) == ([], [], 0), number
    assert deaths > 20


@EITHER
@EACH_OFF
def test_that_of_a_guest_that_is_off_is_recovered_too(make: Make, case: NicCase, *, after: bool) -> None:
    """It ends as one that nobody has killed, whatever was done of it."""
    whole = make(case, off=True)
    whole.move(case.to)
    assert whole.stands() == [("completed", 0)]
    wanted, deaths = Snapshot.of(whole.fleet), 0
    for number, controller in each_death(make, case, after=after, off=True):
        deaths += 1
        assert [each.status for each in controller.shown()] == [INTERRUPTED]
        (report,) = controller.recover()
        assert (report.status, report.notes, controller.stands()) == (Status.COMPLETED, [], [("completed", 0)]), number
        assert (wanted.differences(controller.fleet), controller.kept()) == ([], []), number
    assert deaths > 5


@EITHER
@EACH_OFF
def test_asked_for_again_it_goes_on_where_it_was(make: Make, case: NicCase, *, after: bool) -> None:
    whole = make(case, off=True)
    whole.move(case.to)
    wanted = Snapshot.of(whole.fleet)
    for number, controller in each_death(make, case, after=after, off=True):
        controller.move(case.to)
        assert wanted.differences(controller.fleet) == [], number


@EACH_OFF
def test_what_fails_while_a_guest_is_off_is_undone_or_recovered(make: Make, case: NicCase) -> None:
    """Each call is refused, and each host silent: what is not undone then needs the operator, and says so."""
    ended = set()
    for number in range(1000):
        for fault in (faults.refusal, faults.outage):
            controller = make(case, off=True)
            before = Snapshot.of(controller.fleet)
            controller.fleet.faults.append(fault(faults.at(number)))
            try:
                controller.move(case.to)
            except Problem as problem:
                ended.add(problem.exit)
            else:
                assert number > 5
                assert ended == {Exit.REFUSED, Exit.UNDONE, Exit.OPERATOR}
                return
            controller.fleet.hosts[SOURCE].down_until = 0.0
            recovered = controller.recover()
            if recovered:
                assert [each.status for each in recovered] == [Status.COMPLETED], (number, fault)
            else:
                assert before.differences(controller.fleet) == [], (number, fault)
            assert (controller.kept(), controller.claims()) == ([], 0), (number, fault)


@pytest.fixture
def controller(make: Make) -> Controller:
    return make(RUNNING)


def test_where_it_stands_is_shown_while_it_runs(controller: Controller) -> None:
    seen = []
    look = faults.doing(lambda _call: True, lambda: seen.extend(controller.shown()))
    look.times = 1000
    controller.fleet.faults.append(look)
    controller.move()
    assert {each.status for each in seen} == {"running"}
    assert list(dict.fromkeys(each.phase for each in seen)) == [
        Phase.CHECK,
        Phase.TO_STANDBY,
        Phase.RESTORE,
    ]
    assert {each.step for each in seen} - {None} == set(controller.told)
    (ended,) = controller.shown()
    assert (ended.status, ended.phase, ended.step, ended.started) == ("completed", Phase.DONE, None, seen[0].started)


def test_its_report_has_its_steps(controller: Controller) -> None:
    controller.fleet.held.add(ALIAS)
    with pytest.raises(Problem):
        controller.move()
    (folder,) = operations.every(controller.state)
    report = folder.report()
    assert report is not None
    assert (report.status, report.kind, report.mac, report.to) == (Status.UNDONE, Kind.NIC, MAC, "relay")
    assert (report.source, report.destination) == (SOURCE, SOURCE)
    outcomes = {step.name: step.outcome for step in report.steps}
    assert (outcomes["unplug-vf"], outcomes["undo plug-standby"]) == ("failed", "undone")
    assert controller.stands() == [("undone", 4)]
    assert controller.recover() == []


def test_what_could_not_be_undone_is_by_recovering(controller: Controller) -> None:
    before = Snapshot.of(controller.fleet)
    controller.fleet.faults.append(faults.outage(faults.at_operation(MoveFilter)))
    with pytest.raises(Problem):
        controller.move()
    assert (controller.kept(), controller.stands()) == ([Way.BACK], [("failed", 5)])
    with pytest.raises(Problem, match="does not answer"):
        controller.recover()
    assert controller.stands() == [("failed", 5)]
    controller.fleet.hosts[SOURCE].down_until = 0.0
    (report,) = controller.recover()
    assert (report.status, controller.stands()) == (Status.UNDONE, [("undone", 4)])
    assert (before.differences(controller.fleet), controller.kept()) == ([], [])


def silent_on_the_way_back(controller: Controller, case: NicCase) -> None:
    """It was refused its definition, and nobody answers once the first filter has the MAC again."""
    seen: list[type] = []

    def when(call: Call) -> bool:
        seen.append(type(call.operation))
        back = seen[seen.index(Define) :].count(MoveFilter) if Define in seen else 0
        return back == (2 if case in BY_A_VF else 1)

    controller.fleet.faults += [faults.refusal(faults.at_operation(Define)), faults.outage(when, after=True)]
    with pytest.raises(Problem):
        controller.move(case.to)
    assert controller.kept() == [Way.BACK]
    controller.fleet.hosts[SOURCE].down_until = 0.0


@EITHER
@pytest.mark.parametrize("case", [RUNNING, *BY_A_VF], ids=str)
def test_who_dies_of_taking_back_is_followed_where_it_was(make: Make, case: NicCase, *, after: bool) -> None:
    """What is taken back is not to be again: a NIC that went by a VF would lose its path."""
    for number in range(1000):
        controller = make(case)
        before = Snapshot.of(controller.fleet)
        silent_on_the_way_back(controller, case)
        died = controller.fleet.calls[-1].number + 1 + number
        controller.fleet.faults[:] = [faults.crash(faults.at(died), after=after)]
        try:
            controller.recover()
        except faults.Crash:
            controller.recover()
        else:
            assert number > 10
            return
        assert (before.differences(controller.fleet), controller.stands()) == ([], [("undone", 4)]), number


def test_what_is_left_is_put_in_order_by_recovering(controller: Controller) -> None:
    moved = iter([False, False, True])  # the relay's VF is configured, and settled
    controller.fleet.faults.append(faults.refusal(lambda call: isinstance(call.operation, SetVf) and next(moved)))
    with pytest.raises(Problem, match="is on the relay: wipe-vf"):
        controller.move()
    assert (controller.kept(), controller.stands()) == ([Way.REST], [("completed", 5)])
    (folder,) = operations.every(controller.state)
    report = folder.report()
    assert report is not None
    assert (report.degraded, len(report.notes)) == ("leftovers", 1)
    (report,) = controller.recover()
    assert (report.degraded, controller.stands(), controller.kept()) == (None, [("completed", 0)], [])


def planned(controller: Controller) -> None:
    """It was killed as it had claimed its guest, and done nothing."""
    controller.fleet.faults.append(faults.crash(lambda _call: controller.claims() > 0))
    with pytest.raises(faults.Crash):
        controller.move()
    assert (controller.kept(), controller.claims()) == ([Way.PLANNED], 1)


def test_one_of_which_nothing_was_begun_is_planned_anew(controller: Controller) -> None:
    planned(controller)
    controller.fleet.hosts[SOURCE].machines[GUEST].run += 1
    assert [each.status for each in controller.recover()] == [Status.COMPLETED]


def test_one_of_which_nothing_was_begun_takes_another_vf_than_it_had_claimed(controller: Controller) -> None:
    planned(controller)
    host = controller.fleet.hosts[SOURCE]
    ((claimed, _),) = (host.claims.all()[0].vfs,)
    host.definitions["guest9"] = on_vf(host.definitions[GUEST], MAC, claimed).replace(GUEST, "guest9")
    assert [each.status for each in controller.recover()] == [Status.COMPLETED]
    assert controller.claims() == 0


def test_one_of_which_nothing_was_begun_ends_where_it_would_be_refused(controller: Controller) -> None:
    planned(controller)
    before = Snapshot.of(controller.fleet)
    inside = controller.fleet.hosts[SOURCE].machines[GUEST].inside
    inside.manager, inside.side = None, inside.side.HOTPLUG  # its agent is gone
    (report,) = controller.recover()
    assert (report.status, "cannot move" in report.reason) == (Status.REFUSED, True)
    assert (controller.stands(), controller.claims(), controller.kept()) == ([("refused", 3)], 0, [])
    assert [each for each in before.differences(controller.fleet) if "claims" not in each] == []


def test_one_that_is_refused_as_it_begins_has_ended(controller: Controller) -> None:
    found = controller.assess()
    assert found.plan is not None
    claims = controller.fleet.hosts[SOURCE].claims
    claims.claim(Session(operation="op-9"), GUEST)
    with pytest.raises(Problem):
        run_virtually(nic_driving.move(controller.state, found.plan, controller.told.append))
    assert (controller.stands(), controller.recover()) == ([("refused", 3)], [])


def test_one_that_was_begun_while_off_waits_for_a_guest_that_runs_now(make: Make) -> None:
    """The relay has the port; which VF has the guest's MAC is not to be changed under it."""
    case = OFF[0]
    controller = make(case, off=True)
    controller.fleet.faults.append(faults.crash(faults.at_operation(Define), after=True))
    with pytest.raises(faults.Crash):
        controller.move(case.to)
    start(controller.fleet, case)
    before = Snapshot.of(controller.fleet)
    with pytest.raises(Problem) as caught:
        controller.recover()
    assert (caught.value.code, caught.value.exit) == ("nic-begun-off", Exit.OPERATOR)
    assert (before.differences(controller.fleet), controller.kept()) == ([], [Way.THERE])
    assert [each.code for each in controller.assess(case.to).errors] == ["nic-begun-off"]
    shut_down(controller.fleet)
    assert [each.status for each in controller.recover()] == [Status.COMPLETED]


def test_one_whose_guest_is_started_as_it_is_gone_on_with_keeps_its_claim(make: Make) -> None:
    """What comes after the definition is done once the guest is off again."""
    case = NicCase(NicTarget.VF, NicTarget.VIRTIO)
    whole = make(case, off=True)
    whole.move(case.to)
    controller = make(case, off=True)
    controller.fleet.faults.append(faults.crash(faults.at_operation(Define), after=True))
    with pytest.raises(faults.Crash):
        controller.move(case.to)
    started = faults.doing(faults.at_operation(ClaimResources), partial(start, controller.fleet, case), after=True)
    controller.fleet.faults.append(started)
    with pytest.raises(Problem) as caught:
        controller.recover()
    assert (caught.value.code, controller.claims(), controller.kept()) == ("guest-changed", 1, [Way.THERE])
    shut_down(controller.fleet)
    controller.recover()
    assert Snapshot.of(whole.fleet).differences(controller.fleet) == []


def begun_while_off(make: Make, case: NicCase) -> Controller:
    """It was killed as the relay had its port."""
    controller = make(case, off=True)
    controller.fleet.faults.append(faults.crash(faults.at_operation(JoinRelay), after=True))
    with pytest.raises(faults.Crash):
        controller.move(NicTarget.RELAY)
    return controller


def test_one_begun_while_off_may_go_elsewhere_from_there(make: Make) -> None:
    controller = begun_while_off(make, NicCase(NicTarget.VIRTIO, NicTarget.RELAY))
    controller.move(NicTarget.VIRTIO)
    (shown,) = controller.shown()
    assert (shown.status, shown.to, controller.fleet.hosts[SOURCE].ports) == ("completed", "virtio", {})


def test_one_begun_while_off_is_seen_to_its_end_first_where_it_holds_other_vfs(make: Make) -> None:
    controller = begun_while_off(make, NicCase(NicTarget.VF, NicTarget.RELAY))
    with pytest.raises(Problem) as caught:
        controller.move(NicTarget.VIRTIO)
    (shown,) = controller.shown()
    assert (caught.value.code, caught.value.exit) == ("claim-differs", Exit.REFUSED)
    assert f"vferry operation recover {shown.operation}" in caught.value.remedy
    (report,) = controller.recover()
    assert (report.status, report.to) == (Status.COMPLETED, "relay")
    controller.move(NicTarget.VIRTIO)


def test_a_later_move_of_the_guest_leaves_an_older_one_nothing(controller: Controller) -> None:
    """As where its claim had been released when it was killed, or was not made yet."""
    controller.fleet.faults.append(faults.crash(faults.at_operation(ReleaseClaim), after=True))
    with pytest.raises(faults.Crash):
        controller.move()
    controller.move(NicTarget.VF)
    assert sorted(controller.stands(), key=str) == [("completed", 0), (INTERRUPTED, None)]
    assert controller.recover() == []
    before = Snapshot.of(controller.fleet)
    older = next(each for each in controller.shown() if each.status == INTERRUPTED)
    folder = operations.find(controller.state, older.operation)
    with pytest.raises(Problem, match="taken over by a later operation"):
        run_virtually(nic_driving.recover(controller.state, folder, controller.told.append))
    assert before.differences(controller.fleet) == []


def test_one_that_has_ended_is_not_recovered(controller: Controller) -> None:
    controller.move()
    (folder,) = operations.every(controller.state)
    with pytest.raises(Problem) as caught:
        run_virtually(nic_driving.recover(controller.state, folder, controller.told.append))
    assert (caught.value.code, caught.value.exit) == ("nothing-to-recover", Exit.DONE)


def test_one_that_is_driven_is_left_alone(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_GLANCE_S", -1.0)  # no time passes while it is looked at
    refused = []

    def ask() -> None:
        (folder,) = operations.every(controller.state)
        try:
            folder.driven().__enter__()
        except Problem as problem:
            refused.append(problem.code)

    controller.fleet.faults.append(faults.doing(faults.at_operation(MoveFilter), partial(ask)))
    controller.move()
    assert refused == ["operation-running"]
