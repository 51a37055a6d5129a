"""`operation recover` of a migration whose guest was shut down: all that needs no guest is done, there or back."""

from pathlib import Path
from typing import Any

import pytest

from fakes import faults
from fakes.contract import Snapshot
from fakes.matrix import clean_calls, plan_of
from fakes.recovery import Kept
from fakes.samples import CASES, DESTINATION, GUEST, SOURCE, Case, Drive, make_fleet
from fakes.world import Machine
from vferry.controller.operations import RUNNING
from vferry.host.api import Define, ReleaseClaim, SetVf, StartMigration, Undefine, Unplug
from vferry.migration.stepper import Ending
from vferry.model.problem import Exit, Problem
from vferry.plan.plan import GuestSide, NetworkMode

SWITCH = Case(NetworkMode.SWITCH, GuestSide.ADDRESSES)
BOUND = Case(NetworkMode.RELAY, GuestSide.NOBODY, nics=0, switched=1, bound=True)


class Left(Kept):
    """A migration that its controller has left, and whose guest was shut down since."""

    def __init__(self, case: Case, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(Drive(make_fleet(case), plan_of(case)), directory, monkeypatch)
        off = make_fleet(case)
        for host in off.hosts.values():
            host.end(GUEST)
        self.before = Snapshot.of(off)
        self.stands(RUNNING, None)

    def killed(self, number: int) -> bool:
        """Whether it came so far."""
        self.fleet.faults.append(faults.crash(faults.at(number), after=True))
        try:
            self.drive.run()
        except faults.Crash:
            return True
        return False

    def shut_down(self) -> None:
        """libvirt ends what it was at with the guest."""
        for host in self.fleet.hosts.values():
            host.end(GUEST)
            for job in host.jobs.values():
                job.state = "failed" if job.state == "active" else job.state

    def recover(self, keeper: str | None = None) -> Ending:
        ending = super().recover(keeper)
        self.stands("failed" if ending.exit is Exit.OPERATOR else "undone", ending.exit)
        return ending

    def wrong(self, wanted: Snapshot, *but: str) -> list[str]:
        """What is not as wanted, but for the guest."""
        unlike = [f": {each} was" for each in ("guests", *but)]
        return [each for each in wanted.differences(self.fleet) if not any(what in each for what in unlike)]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("os.fsync", lambda _file: None)
    number = iter(range(10_000))
    return lambda case: Left(case, tmp_path / str(next(number)), monkeypatch)


def ended_well(make: Any, case: Case) -> Snapshot:
    """What a migration leaves that came to its end, once its guest is shut down."""
    whole: Left = make(case)
    assert whole.drive.run().exit is Exit.DONE
    whole.shut_down()
    return Snapshot.of(whole.fleet)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_wherever_it_was_left_nothing_waits_for_the_guest(make: Any, case: Case) -> None:
    """As if it had never been begun, or as if it had come to its end: by where the guest is to be started."""
    ended = ended_well(make, case)
    seen = set()
    for call in clean_calls(case)[:-1]:
        left = make(case)
        assert left.killed(call.number)
        left.shut_down()
        there = GUEST in left.fleet.hosts[DESTINATION].definitions
        ending = left.recover()
        seen.add(there)
        assert (ending.exit, ending.notes) == (Exit.DONE if there else Exit.UNDONE, ()), call
        assert left.wrong(ended if there else left.before) == [], call
    assert seen == {False, True}


def at(case: Case, operation: type, host: str | None = None) -> int:
    """The first such call."""
    when = faults.at_operation(operation, host)
    return next(call.number for call in clean_calls(case) if when(call))


def test_what_needs_the_operator_is_put_in_order_although_the_guest_is_off(make: Any) -> None:
    """Its undo had failed for the guest's being off."""
    left = make(SWITCH)
    left.killed(at(SWITCH, Unplug))
    left.shut_down()
    left.stands("failed", Exit.OPERATOR)
    assert left.recover().exit is Exit.UNDONE
    assert left.wrong(left.before) == []


@pytest.mark.parametrize("case", [SWITCH, BOUND], ids=str)
@pytest.mark.parametrize("operation", [StartMigration, Define, Undefine, ReleaseClaim])
def test_what_fails_is_done_the_next_time(make: Any, case: Case, operation: type) -> None:
    ended, left = ended_well(make, case), make(case)
    left.killed(at(case, operation))
    left.shut_down()
    there = GUEST in left.fleet.hosts[DESTINATION].definitions
    wanted = ended if there else left.before
    left.fleet.faults.append(faults.refusal(faults.at_operation(SetVf if case is SWITCH else ReleaseClaim)))
    assert left.recover().exit is Exit.OPERATOR
    assert left.recover().exit is (Exit.DONE if there else Exit.UNDONE)
    assert left.wrong(wanted) == []


def test_a_guest_that_is_started_meanwhile_keeps_what_it_has(make: Any) -> None:
    left = make(SWITCH)
    machine: Machine = left.fleet.hosts[SOURCE].machines[GUEST]
    left.killed(at(SWITCH, StartMigration))
    left.shut_down()

    def start() -> None:
        left.fleet.hosts[SOURCE].machines[GUEST] = machine

    left.fleet.faults.append(faults.doing(faults.at_operation(SetVf), start, after=True))
    left.fleet.check = lambda: None
    changed = len(left.fleet.calls)
    ending = left.recover()
    assert (ending.exit, "was started on host1" in ending.notes[0]) == (Exit.OPERATOR, True)
    asked = [call.operation for call in left.fleet.calls[changed:]]
    assert sum(isinstance(each, (SetVf, ReleaseClaim)) for each in asked) == 1


@pytest.mark.parametrize("host", [SOURCE, DESTINATION])
def test_while_a_host_is_silent_nothing_is_changed(make: Any, host: str) -> None:
    left = make(SWITCH)
    left.killed(at(SWITCH, StartMigration))
    left.shut_down()
    left.stands("failed", Exit.OPERATOR)
    before = Snapshot.of(left.fleet)
    left.fleet.hosts[host].down_until = 1e9
    with pytest.raises(Problem) as caught:
        left.recover()
    assert caught.value.code == "guest-uncertain"
    assert left.wrong(before, "claims") == []
    assert all(len(each.claims.all()) == 1 for each in left.fleet.hosts.values())


def test_a_guest_that_nobody_defines_is_left_to_the_operator(make: Any) -> None:
    left = make(SWITCH)
    left.killed(at(SWITCH, StartMigration))
    left.shut_down()
    left.fleet.hosts[SOURCE].definitions.clear()
    before = Snapshot.of(left.fleet)
    with pytest.raises(Problem) as caught:
        left.recover()
    assert (caught.value.code, "virsh define" in caught.value.remedy) == ("guest-uncertain", True)
    assert left.wrong(before, "claims") == []
    assert all(len(each.claims.all()) == 1 for each in left.fleet.hosts.values())
