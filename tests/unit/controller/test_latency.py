"""Measuring beside a migration: what is collected, for which step, and that the migration is as it would have been."""

import asyncio
from typing import Any

import pytest

from fakes import faults
from fakes.clock import run_virtually
from fakes.contract import moved
from fakes.fleet import CALL_S, Fleet
from fakes.journal import MemoryJournal, Witness
from fakes.matrix import plan_of
from fakes.samples import DESTINATION, GUEST, OPERATION, SOURCE, Case, make_fleet
from vferry.controller.latency import BASELINE, STEPS, LatencyWatch, Measured, kept
from vferry.host.api import Latency, MeasureGuest, Operation, R, Unplug
from vferry.migration.conductor import Conductor
from vferry.migration.record import Outcome, StepRecord
from vferry.migration.stepper import Ending
from vferry.model.problem import Exit, Problem
from vferry.model.report import Phase
from vferry.plan.plan import GuestSide, NetworkMode

SWITCH = Case(NetworkMode.SWITCH, GuestSide.ADDRESSES)
ANSWER = Latency(agent_ms=(2.0, 4.0), disk_ms=(1.0,))


class Listener(Witness):
    def __init__(self) -> None:
        super().__init__()
        self.probes: list[tuple[int, float]] = []

    def probed(self, lost: int, gap_ms: float) -> None:
        self.probes.append((lost, gap_ms))


def migrate(fleet: Fleet, *, watched: bool = True) -> tuple[Ending, dict[str, Measured], Listener]:
    """A whole migration in mode switch, with the watch around its listener."""
    plan, listener = plan_of(SWITCH), Listener()
    hosts = {name: fleet.host(name, OPERATION) for name in (SOURCE, DESTINATION)}

    async def work() -> tuple[Ending, dict[str, Measured], Listener]:
        if not watched:
            return await Conductor(plan, hosts, MemoryJournal(), listener).run(), {}, listener
        async with LatencyWatch(GUEST, hosts, listener) as watch:
            await watch.baseline(SOURCE)
            ending = await Conductor(plan, hosts, MemoryJournal(), watch).run()
        return ending, watch.measured, listener

    return run_virtually(work())


def seen(listener: Listener) -> list[Any]:
    return [listener.phases, listener.begun, [(one.name, one.host, one.outcome) for one in listener.records]]


def test_each_step_is_measured_where_it_runs_after_a_baseline() -> None:
    fleet = make_fleet(SWITCH)
    ending, measured, listener = migrate(fleet)
    assert list(measured) == [BASELINE, *STEPS]
    assert [one.host for one in measured.values()] == [SOURCE, SOURCE, SOURCE, DESTINATION, DESTINATION]
    assert all(one.agent_ms and one.disk_ms and one.no_answer == 0 for one in measured.values())
    assert measured[BASELINE].agent_ms == ANSWER.agent_ms * 3
    plain, _, unwatched = migrate(make_fleet(SWITCH), watched=False)
    assert ending.exit is plain.exit is Exit.DONE
    assert seen(listener) == seen(unwatched)
    assert listener.samples


@pytest.mark.parametrize("after", [False, True])
def test_a_host_that_does_not_answer_it_does_not_disturb_the_migration(after: bool) -> None:  # noqa: FBT001
    fleet = make_fleet(SWITCH)
    fleet.faults.append(faults.lost_answer(faults.at_operation(MeasureGuest), after=after, times=10**6))
    ending, measured, _ = migrate(fleet)
    assert ending.exit is Exit.DONE
    assert moved(fleet, plan_of(SWITCH)) == []
    assert all(one.no_answer >= 1 and not one.agent_ms for one in measured.values())


def test_a_migration_that_is_undone_is_measured_as_far_as_it_came() -> None:
    fleet = make_fleet(SWITCH)
    fleet.faults.append(faults.refusal(faults.at_operation(Unplug), code="unplug-refused"))
    ending, measured, _ = migrate(fleet)
    assert ending.exit is Exit.UNDONE
    assert list(measured) == [BASELINE, "plug-standby", "unplug-vf"]


class SlowHost:
    """Answers when it has measured; `fails` of its calls, from the first one on, do not."""

    name = SOURCE

    def __init__(self, fails: int = 0) -> None:
        self.fails = fails
        self.asked: list[float] = []

    async def call(self, operation: Operation[R], *, timeout_s: float = 30.0) -> R:
        assert isinstance(operation, MeasureGuest)
        assert operation.seconds < timeout_s
        self.asked.append(asyncio.get_running_loop().time())
        self.fails -= 1
        if self.fails >= 0:
            await asyncio.sleep(CALL_S)
            raise Problem("guest-agent-silent", "it says nothing")
        await asyncio.sleep(operation.seconds)
        answer: R = ANSWER  # type: ignore[assignment]
        return answer


def ended(name: str) -> StepRecord:
    return StepRecord(
        phase=Phase.TO_STANDBY, name=name, host=SOURCE, outcome=Outcome.DONE, start=0, end=1, started="now"
    )


@pytest.mark.parametrize(
    ("step_s", "fails", "slices", "no_answer"),
    [(0.1, 0, 1, 0), (2.5, 0, 3, 0), (2.5, 1, 2, 1), (0.0, 1, 0, 1)],
)
def test_slices_follow_each_other_until_the_step_ends(step_s: float, fails: int, slices: int, no_answer: int) -> None:
    host = SlowHost(fails)

    async def work() -> Measured:
        async with LatencyWatch(GUEST, {SOURCE: host}, Listener()) as watch:
            watch.started(Phase.TO_STANDBY, "plug-standby", SOURCE)
            watch.started(Phase.TO_STANDBY, "guest-to-standby", SOURCE)
            await asyncio.sleep(step_s)
            watch.ended(ended("plug-standby"))
            watch.ended(ended("guest-to-standby"))
        assert list(watch.measured) == ["plug-standby"]
        return watch.measured["plug-standby"]

    measured = run_virtually(work())
    assert measured == Measured(
        host=SOURCE, agent_ms=ANSWER.agent_ms * slices, disk_ms=ANSWER.disk_ms * slices, no_answer=no_answer
    )
    assert len(host.asked) == slices + no_answer


async def interrupted(watch: LatencyWatch) -> None:
    async with watch:
        watch.started(Phase.TO_STANDBY, "plug-standby", SOURCE)
        await asyncio.sleep(0.01)
        raise KeyError


def test_an_end_by_force_waits_for_nothing() -> None:
    async def work() -> float:
        begun = asyncio.get_running_loop().time()
        with pytest.raises(KeyError):
            await interrupted(LatencyWatch(GUEST, {SOURCE: SlowHost()}, Listener()))
        return asyncio.get_running_loop().time() - begun

    assert run_virtually(work()) < 0.1


def test_all_is_passed_on() -> None:
    listener = Listener()
    watch = LatencyWatch(GUEST, {}, listener)
    watch.probed(3, 4.5)
    watch.phase(Phase.COPY)
    watch.ended(ended("define"))
    assert (listener.probes, listener.phases, len(listener.records)) == ([(3, 4.5)], [Phase.COPY], 1)


def test_figures_are_kept_by_step() -> None:
    assert kept({BASELINE: Measured(host=SOURCE, agent_ms=(3.0, 1.0, 8.0), no_answer=2)}) == {
        BASELINE: {
            "host": SOURCE,
            "agent_ms": {"median": 3.0, "max": 8.0, "n": 3},
            "disk_ms": {"median": None, "max": None, "n": 0},
            "no_answer": 2,
        }
    }
