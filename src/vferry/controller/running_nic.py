"""Moving the NIC of a guest that runs: journaled, so that it can be gone on with, there or back, after any crash."""

from vferry.controller.nic_moves import KeptMove, Told, Way
from vferry.controller.operations import OperationFolder
from vferry.controller.state import State
from vferry.controller.stepping import Tell
from vferry.host.api import Host
from vferry.migration.nic_mover import NicMover
from vferry.migration.stepper import Ending, Journal
from vferry.model.problem import Exit, Problem
from vferry.network.nic import stages
from vferry.plan.nic_plan import NicMove


async def carry_out(state: State, folder: OperationFolder, kept: KeptMove, host: Host, tell: Tell) -> Ending:
    """Carries a move out, or goes on with it. What fails is undone: that is in the ending."""
    # The engine takes half a second to import, which a refused move need not wait for.
    from vferry.controller.journal import run_journaled

    move = _move_of(kept)
    told = Told(folder, {step.name: step.summary for step in stages(move).all}, tell)

    async def body(journal: Journal) -> Ending:
        mover = NicMover(move, {host.name: host}, journal, told)
        if kept.way is Way.BACK:
            return await mover.take_back("what was begun was to be undone", kept.left)
        return await (mover.finish() if kept.way is Way.REST else mover.run())

    # A repair is a run of its own, since the one before has ended; whoever takes a repair over goes on with it.
    run = f"{folder.name}.{kept.runs}" if kept.runs else folder.name
    return await run_journaled(state.journal, run, body)


def problem_of(kept: KeptMove, ending: Ending) -> Problem | None:
    """What is to be said of an ending that is not well: as the step that failed says it."""
    guest, mac, to = kept.plan.guest, kept.plan.mac, kept.plan.to
    again = f"vferry guest nic {guest} {mac} --to {to}"
    if ending.exit is Exit.OPERATOR:
        what = f"is on {to.described}" if ending.at_destination else "could not be given all back that it had"
        return Problem(
            _code(ending),
            f"{mac} of {guest} {what}: {' '.join(ending.notes)}",
            f"When the cause is gone, once more: {again}",
            exit=Exit.OPERATOR,
        )
    if ending.exit is Exit.DONE:
        return None
    message = f"{ending.reason}. All that was done for {mac} of {guest} is undone"
    return Problem(_code(ending), message, _remedy(ending) or f"Then: {again}", exit=ending.exit)


def _move_of(kept: KeptMove) -> NicMove:
    assert kept.plan.move is not None, "this is for a guest that runs"  # noqa: S101 - planned so
    return kept.plan.move


def _code(ending: Ending) -> str:
    return next((record.code for record in ending.records if record.code), "nic-not-moved")


def _remedy(ending: Ending) -> str:
    return next((record.remedy for record in ending.records if record.code), "")
