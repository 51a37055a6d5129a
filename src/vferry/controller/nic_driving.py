"""Carrying the move of a guest's NIC out, as an operation: it can be seen, gone on with, and recovered."""

from vferry.controller import guest_nic, nic_moves, operations, running_nic
from vferry.controller.hosts import open_host
from vferry.controller.nic_moves import KeptMove, Told, Way
from vferry.controller.operations import OperationFolder
from vferry.controller.room import NoRoom
from vferry.controller.state import State
from vferry.controller.stepping import STEP_TIMEOUT_S, Tell, carry_out, look, outcome, session_of, take_back
from vferry.host.api import ClaimResources, Host, ReleaseClaim, Session
from vferry.migration.stepper import Ending
from vferry.model.problem import Exit, Problem
from vferry.model.report import Report
from vferry.plan.host_step import HostStep
from vferry.plan.nic_plan import NicPlan

Ended = tuple[Ending, Problem | None]
"""How it ended, and what is to be said of it where that is not well."""


async def move(state: State, plan: NicPlan, tell: Tell) -> None:
    """Carries a plan out, or goes on with it. What fails is undone, with exit 4; with exit 5 where that fails, too.

    Without steps, only the claim is released that a controller has left which died after the last one. Problems: the
    failed step's own, ``operation-running``, and ``guest-changed`` where the guest is not as it was when this was
    planned.
    """
    if not guest_nic.steps(plan) and not await _is_begun(state, plan):
        return
    folder = operations.named(state, plan.operation)
    with folder.driven():
        if problem := await _drive(state, folder, plan, tell):
            raise problem


async def recover(state: State, folder: OperationFolder, tell: Tell) -> Report:
    """Goes on with a move whose controller died, there or back, or puts in order what it has left.

    The caller holds its lock. Problems: ``nothing-to-recover``, and what keeps it from being gone on with.
    """
    operations.refuse_ended(state, folder)
    kept = nic_moves.read(folder)
    found = await guest_nic.reassess(state, kept.plan)
    if found.plan is not None:
        await _drive(state, folder, found.plan, tell)
    else:
        (finding, *_) = found.errors
        problem = Problem(finding.code, finding.message, finding.remedy, exit=Exit.OPERATOR)
        if kept.way is not Way.PLANNED:
            raise problem
        await _give_up(state, folder, kept, problem)
    report = folder.report()
    assert report is not None, "it has ended"  # noqa: S101 - it is written then
    return report


async def _drive(state: State, folder: OperationFolder, plan: NicPlan, tell: Tell) -> Problem | None:
    """Claims, carries out, releases; what is to be said of an ending that is not well."""
    session = await _session(state, folder, plan)
    kept = nic_moves.begin(folder, plan, session.epoch)
    async with open_host(plan.host, session, state) as host:
        if problem := await _refused(state, folder, kept, host):
            return problem
        try:
            ending, problem = await _carry_out(state, folder, nic_moves.set_out(folder, kept), host, tell)
        except NoRoom as full:
            if kept.way is not Way.PLANNED:
                raise
            await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
            nic_moves.refuse(folder, kept, full)
            return full
        if ending.exit is not Exit.OPERATOR:
            await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
    nic_moves.end(folder, kept, ending)
    return problem


async def _refused(state: State, folder: OperationFolder, kept: KeptMove, host: Host) -> Problem | None:
    """Claims what it needs, and looks once more, unless its journal knows how far it is.

    Answers why nothing is begun; that ends it. Where it was begun, and where nobody answers, that is raised.
    """
    try:
        await _claim(folder, kept, host)
        if guest_nic.steps(kept.whole) and (kept.way is Way.PLANNED or kept.plan.move is None):
            await _check_unchanged(state, kept, host)
    except Problem as problem:
        if kept.way is not Way.PLANNED or problem.code == "host-unreachable":
            raise
        nic_moves.refuse(folder, kept, problem)
        return problem
    return None


async def _claim(folder: OperationFolder, kept: KeptMove, host: Host) -> None:
    plan = kept.plan
    claim = ClaimResources(guest=plan.guest, vfs=plan.vfs, slot=False)
    try:
        await host.call(claim, timeout_s=STEP_TIMEOUT_S)
    except Problem as problem:
        if problem.code != "claim-differs":
            raise
        if kept.way is not Way.PLANNED:
            raise Problem(
                problem.code,
                f"{plan.mac} of {plan.guest} is on its way to something else, with other VFs",
                f"See that to its end first: vferry operation recover {folder.name}",
                exit=Exit.REFUSED,
            ) from problem
        # Nothing was done with what it held.
        await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
        await host.call(claim, timeout_s=STEP_TIMEOUT_S)


async def _check_unchanged(state: State, kept: KeptMove, host: Host) -> None:
    """Whether it would be planned so still, now that nobody else of vferry can change the guest.

    If not, it lets go of one of which nothing is begun.
    """
    plan = kept.whole
    try:
        again = await guest_nic.reassess(state, plan)
        if again.plan != plan:
            why = again.errors[0].message if again.errors else "its definition or its host has changed"
            raise Problem(
                "guest-changed",
                f"{plan.guest} is not as it was a moment ago: {why}",
                "Ask again",
                exit=Exit.REFUSED,
            )
    except Problem:
        if kept.way is Way.PLANNED:
            await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
        raise


async def _carry_out(state: State, folder: OperationFolder, kept: KeptMove, host: Host, tell: Tell) -> Ended:
    """Raises `NoRoom` where there is none to begin with."""
    if kept.plan.move is None:
        return await _redefine(folder, kept.whole, host, tell)
    ending = await running_nic.carry_out(state, folder, kept, host, tell)
    return ending, running_nic.problem_of(kept, ending)


async def _redefine(folder: OperationFolder, plan: NicPlan, host: Host, tell: Tell) -> Ended:
    """Of a guest that is off: what its host has of the NIC, and its definition."""
    told = Told(folder, {}, tell)
    begun: list[HostStep] = []
    try:
        await carry_out(host, plan.steps, begun, told.say)
    except Problem as problem:
        if problem.code == "stale-controller":
            raise  # somebody else goes on with it now
        failed = await take_back(host, begun, told.say)
        again = f"When the host answers again, once more: {plan.command}"
        said = outcome(problem, f"{plan.mac} of {plan.guest}", failed, again)
        notes = (*failed, again) if failed else ()
        return Ending(exit=said.exit, reason=problem.message, records=(), at_destination=False, notes=notes), said
    return Ending(exit=Exit.DONE, reason="", records=(), at_destination=True), None


async def _give_up(state: State, folder: OperationFolder, kept: KeptMove, problem: Problem) -> None:
    """Ends what cannot be done any more, and of which nothing was begun; a claim may be all that there is."""
    session = await _session(state, folder, kept.plan)
    if await _is_claimed(state, kept.plan):
        async with open_host(kept.plan.host, session, state) as host:
            await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
    nic_moves.refuse(folder, kept, problem)


async def _session(state: State, folder: OperationFolder, plan: NicPlan) -> Session:
    """Calls as whoever takes it over, also where its claim was released."""
    session = session_of(await look(state, plan.host), plan.operation)
    known = folder.stored().epoch + 1 if folder.is_there() else 1
    return Session(operation=plan.operation, epoch=max(session.epoch, known))


async def _is_begun(state: State, plan: NicPlan) -> bool:
    return operations.named(state, plan.operation).is_there() or await _is_claimed(state, plan)


async def _is_claimed(state: State, plan: NicPlan) -> bool:
    return any(claim.operation == plan.operation for claim in (await look(state, plan.host)).claims)
