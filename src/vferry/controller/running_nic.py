"""Moving the NIC of a guest that runs: journaled, so that it can be gone on with, there or back, after any crash."""

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from vferry.controller import nic_moves
from vferry.controller.hosts import open_host
from vferry.controller.nic_moves import KeptMove, Way
from vferry.controller.state import State
from vferry.controller.stepping import STEP_TIMEOUT_S, Tell, look, session_of
from vferry.host.api import ClaimResources, Host, Migration, ReleaseClaim
from vferry.migration.nic_mover import NicMover
from vferry.migration.record import StepRecord
from vferry.migration.stepper import Ending, Journal
from vferry.model.problem import Exit, Problem
from vferry.model.report import Phase
from vferry.network.nic import stages
from vferry.plan.nic_plan import NicPlan

Check = Callable[[Host], Awaitable[None]]
"""Raises a `Problem` where it would not be planned so any more; the claim is released then."""


async def move(state: State, plan: NicPlan, tell: Tell, check: Check) -> None:
    """Carries a plan out, or goes on with it. What fails is undone, with exit 4; with exit 5 where that fails, too.

    Problems: the failed step's own, ``operation-running``, and what `check` says of a plan of which nothing is begun.
    """
    assert plan.move is not None, "this is for a guest that runs"  # noqa: S101 - planned so
    with nic_moves.driven(state, plan.operation):
        session = session_of(await look(state, plan.host), plan.operation)
        kept = nic_moves.find(state, plan.operation)
        if kept is None or kept.way is Way.PLANNED:
            kept = KeptMove(operation=plan.operation, vfs=plan.vfs, move=plan.move)
            nic_moves.keep(state, kept)
        async with open_host(plan.host, session, state) as host:
            await _claim(state, kept, host)
            if kept.way is Way.PLANNED:
                await _begin(state, kept, host, check)
                kept = replace(kept, way=Way.THERE)
                nic_moves.keep(state, kept)
            ending = await _carried_out(state, kept, host, session.epoch, tell)
            await _end(state, kept, host, ending)


async def _claim(state: State, kept: KeptMove, host: Host) -> None:
    try:
        claim = ClaimResources(guest=kept.move.swap.guest, vfs=kept.vfs, slot=False)
        await host.call(claim, timeout_s=STEP_TIMEOUT_S)
    except Problem as problem:
        if kept.way is Way.PLANNED and problem.code != "host-unreachable":
            nic_moves.forget(state, kept.operation)
        raise


async def _begin(state: State, kept: KeptMove, host: Host, check: Check) -> None:
    """Whether it would be planned so still, now that nobody else of vferry can change the guest."""
    try:
        await check(host)
    except Problem:
        await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
        nic_moves.forget(state, kept.operation)
        raise


async def _carried_out(state: State, kept: KeptMove, host: Host, epoch: int, tell: Tell) -> Ending:
    # The engine takes half a second to import, which a refused move need not wait for.
    from vferry.controller.journal import run_journaled

    async def body(journal: Journal) -> Ending:
        mover = NicMover(kept.move, {host.name: host}, journal, _Told(kept, tell))
        if kept.way is Way.BACK:
            return await mover.take_back("what was begun was to be undone")
        return await (mover.finish() if kept.way is Way.REST else mover.run())

    # A repair is a run of its own: the first one has ended.
    run = kept.operation if kept.way is Way.THERE else f"{kept.operation}.{epoch}"
    return await run_journaled(state.journal, run, body)


async def _end(state: State, kept: KeptMove, host: Host, ending: Ending) -> None:
    """Releases what is settled, and says what is not. Problems: those of the step that failed."""
    swap, to = kept.move.swap, kept.move.to
    again = f"vferry guest nic {swap.guest} {swap.mac} --to {to}"
    if ending.exit is Exit.OPERATOR:
        nic_moves.keep(state, replace(kept, way=Way.REST if ending.at_destination else Way.BACK))
        what = f"is on {to.described}" if ending.at_destination else "could not be given all back that it had"
        raise Problem(
            _code(ending),
            f"{swap.mac} of {swap.guest} {what}: {' '.join(ending.notes)}",
            f"When the cause is gone, once more: {again}",
            exit=Exit.OPERATOR,
        )
    await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
    nic_moves.forget(state, kept.operation)
    if ending.exit is not Exit.DONE:
        message = f"{ending.reason}. All that was done for {swap.mac} of {swap.guest} is undone"
        raise Problem(_code(ending), message, _remedy(ending) or f"Then: {again}", exit=ending.exit)


def _code(ending: Ending) -> str:
    return next((record.code for record in ending.records if record.code), "nic-not-moved")


def _remedy(ending: Ending) -> str:
    return next((record.remedy for record in ending.records if record.code), "")


class _Told:
    """An observer that has each step said as it begins, in words."""

    def __init__(self, kept: KeptMove, tell: Tell) -> None:
        self._summaries = {step.name: step.summary for step in stages(kept.move).all}
        self._tell = tell

    def phase(self, phase: Phase) -> None:
        pass

    def started(self, phase: Phase, name: str, host: str) -> None:
        undone = name.removeprefix("undo ")
        if summary := self._summaries.get(undone):
            self._tell(summary if undone == name else f"undo: {summary}")

    def ended(self, record: StepRecord) -> None:
        pass

    def progress(self, migration: Migration) -> None:
        pass
