"""`operation recover` of an operation that ended uncertain: its claims, and the gateway that holds the guest, stay."""

from pathlib import Path

import pytest

from fakes import faults
from fakes.contract import Snapshot, moved
from fakes.matrix import plan_of
from fakes.recovery import Kept
from fakes.samples import DESTINATION, GUEST, SOURCE, Case, Drive, make_fleet
from vferry.controller.operations import RUNNING
from vferry.host.api import ReadMigration
from vferry.model.guest import GuestState
from vferry.model.problem import Exit, Problem
from vferry.plan.plan import GuestSide, NetworkMode

SWITCH = Case(NetworkMode.SWITCH, GuestSide.ADDRESSES)


class Uncertain(Kept):
    """An operation that has ended with exit 5, since the destination was silent in the pause."""

    def __init__(self, torn: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(Drive(make_fleet(SWITCH), plan_of(SWITCH)), directory, monkeypatch)
        self.before = Snapshot.of(self.fleet)
        self.fleet.pace.torn = torn
        self.fleet.faults.append(faults.outage(faults.at_operation(ReadMigration), host=DESTINATION))
        ending = self.drive.run()
        assert ending.exit is Exit.OPERATOR
        self.fleet.faults.clear()
        self.stands("uncertain", ending.exit)

    def answers(self, name: str = DESTINATION) -> None:
        self.fleet.hosts[name].down_until = 0.0


@pytest.fixture
def uncertain(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Uncertain:
    return Uncertain(request.param, tmp_path, monkeypatch)


THERE = pytest.mark.parametrize("uncertain", ["held-running"], indirect=True)
HERE = pytest.mark.parametrize("uncertain", ["held-paused", "held-gone"], indirect=True)


@THERE
@pytest.mark.parametrize("keeper", [None, DESTINATION])
def test_a_guest_at_the_destination_is_finished_there(uncertain: Uncertain, keeper: str | None) -> None:
    uncertain.answers()
    assert uncertain.recover(keeper).exit is Exit.DONE
    assert moved(uncertain.fleet, uncertain.drive.plan) == []


@HERE
@pytest.mark.parametrize("keeper", [None, SOURCE])
def test_a_guest_at_the_source_is_taken_back(uncertain: Uncertain, keeper: str | None) -> None:
    uncertain.answers()
    assert uncertain.recover(keeper).exit is Exit.UNDONE
    assert uncertain.before.differences(uncertain.fleet) == []


@pytest.mark.parametrize("uncertain", ["held-running", "held-paused"], indirect=True)
def test_while_the_destination_is_silent_nothing_changes(uncertain: Uncertain) -> None:
    with pytest.raises(Problem) as caught:
        uncertain.recover()
    assert caught.value.code == "guest-uncertain"
    source = uncertain.fleet.hosts[SOURCE]
    assert source.machines[GUEST].state is GuestState.PAUSED
    assert source.gateways
    assert source.claims.all()


@HERE
def test_the_operators_word_needs_no_answer_from_the_other_host(uncertain: Uncertain) -> None:
    ending = uncertain.recover(SOURCE)
    assert uncertain.fleet.running(GUEST) == [SOURCE]
    assert ending.exit is Exit.OPERATOR, "the destination is not put right yet"
    uncertain.answers()
    uncertain.stands("failed", ending.exit)
    uncertain.recover()
    assert uncertain.before.differences(uncertain.fleet) == []


@THERE
def test_the_word_that_it_is_at_the_destination_needs_no_answer_from_the_source(uncertain: Uncertain) -> None:
    uncertain.answers()
    uncertain.fleet.hosts[SOURCE].down_until = 1e9
    ending = uncertain.recover(DESTINATION)
    assert (ending.exit, ending.at_destination) == (Exit.OPERATOR, True)
    assert uncertain.fleet.running(GUEST) == [DESTINATION]
    uncertain.answers(SOURCE)
    uncertain.stands("completed", ending.exit)
    assert uncertain.recover().exit is Exit.DONE
    assert moved(uncertain.fleet, uncertain.drive.plan) == []


@THERE
def test_a_word_that_is_not_true_is_refused(uncertain: Uncertain) -> None:
    uncertain.answers()
    with pytest.raises(Problem) as caught:
        uncertain.recover(SOURCE)
    assert caught.value.code == "guest-running"
    assert uncertain.fleet.running(GUEST) == [DESTINATION]
    with pytest.raises(Problem) as caught:
        uncertain.recover("host9")
    assert caught.value.code == "host-not-in-operation"


@pytest.mark.parametrize("uncertain", ["held-running", "held-paused"], indirect=True)
def test_one_whose_controller_died_goes_on(uncertain: Uncertain) -> None:
    uncertain.stands(RUNNING, None)
    kept = uncertain.drive.journal.kept
    del kept[next(key for key in kept if "copy-memory" in key)]
    uncertain.answers()
    there = uncertain.fleet.running(GUEST) == [DESTINATION]
    assert uncertain.recover().exit is (Exit.DONE if there else Exit.UNDONE)
