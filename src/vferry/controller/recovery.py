"""Taking an operation over: one whose controller died, or one that ended with something left to do.

What is done is decided by where the guest runs, as the hosts say it now.
"""

from msgspec.structs import replace

from vferry.controller import operations
from vferry.controller.drive import Act, Audience, drive
from vferry.controller.hosts import open_host
from vferry.controller.operations import RUNNING, OperationFolder
from vferry.controller.state import State
from vferry.host.api import ClaimResources, Host, Session, TakeInventory
from vferry.migration.conductor import Conductor
from vferry.migration.settling import Settling, uncertain
from vferry.migration.whereabouts import Verdict, locate, startable
from vferry.model.problem import Exit, Problem
from vferry.model.report import Report
from vferry.plan.plan import Plan


async def recover(state: State, folder: OperationFolder, observer: Audience, guest_is_at: str | None = None) -> Report:
    """Finishes or undoes an operation. The caller holds its lock.

    `guest_is_at` is the operator's word on which host keeps the guest, where the hosts cannot tell.
    Problems: ``nothing-to-recover``, ``guest-uncertain``, ``host-not-in-operation``.
    """
    was, plan = folder.stored(), folder.plan()
    operations.refuse_ended(state, folder)
    # What a journal has that was full is not to be gone on with: the hosts tell where the guest is.
    interrupted = was.status == RUNNING and folder.is_journaled()
    epoch = was.epoch + 1
    folder.write_state(replace(was, epoch=epoch))
    session = Session(operation=plan.operation, epoch=epoch)
    async with (
        open_host(plan.source, session, state) as source,
        open_host(plan.destination, session, state) as destination,
    ):
        await _take_over(plan, source, destination, anew=not interrupted)
        verdict = await _settle(plan, source, destination, guest_is_at, asking=not interrupted)
        off = verdict is Verdict.NOWHERE
        if off:
            verdict = await startable(source, destination, plan.guest)
            await _take_over(plan, source, destination, anew=True)
    if interrupted and guest_is_at is None and not off:
        return await drive(state, folder, observer, Conductor.run, folder.name)
    return await drive(state, folder, observer, _act(plan, verdict, off=off), f"{folder.name}.{epoch}")


def _act(plan: Plan, verdict: Verdict, *, off: bool) -> Act:
    """What is done where the guest runs, or is to be started: then nothing is asked of it."""
    if verdict is Verdict.DESTINATION:
        return lambda conductor: conductor.finish(guest_is_off=off)
    if verdict is Verdict.SOURCE:
        is_there = f"is off, and defined on {plan.source}" if off else f"runs on {plan.source}"
        why = Problem("recovered", f"{plan.guest} {is_there}; what was begun was undone", exit=Exit.UNDONE)
        return lambda conductor: conductor.take_back(why, guest_is_off=off)
    if off:
        raise Problem(
            "guest-uncertain",
            f"{plan.guest} is off, and defined neither on {plan.source} nor on {plan.destination}",
            f"Define it where it is to be started (virsh define), then: vferry operation recover {plan.operation}",
            exit=Exit.OPERATOR,
        )
    raise uncertain(plan, verdict)


async def _take_over(plan: Plan, source: Host, destination: Host, *, anew: bool) -> None:
    """Raises the epoch of the claims that are there: an earlier controller's calls are refused from now on.

    `anew` claims what the operation has given back already. An interrupted one goes on where it was, so what it
    has not claimed yet, or given back, is not claimed for it.
    """
    for host, vfs in ((source, plan.source_vfs), (destination, plan.destination_vfs)):
        try:
            held = any(claim.operation == plan.operation for claim in (await host.call(TakeInventory())).claims)
            if held or anew:
                await host.call(ClaimResources(guest=plan.guest, vfs=vfs))
        except Problem as problem:
            if problem.code != "host-unreachable":
                raise


async def _settle(plan: Plan, source: Host, destination: Host, keeper: str | None, *, asking: bool) -> Verdict:
    """Where the guest is, once it is where it can be settled to be: by the operator's word, or by `asking`.

    NOWHERE where both hosts say for a while that they do not run it, and nothing goes on that would change that.
    """
    settling = Settling(plan, source, destination)
    if keeper is not None:
        if keeper not in (plan.source, plan.destination):
            raise Problem(
                "host-not-in-operation",
                f"{keeper} is not a host of operation {plan.operation}",
                f"Name {plan.source} or {plan.destination}",
            )
        await settling.keep_at(keeper)
    verdict = await locate(source, destination, plan.guest)
    if keeper is None and verdict is not Verdict.DESTINATION and (asking or verdict is Verdict.NOWHERE):
        # A migration may be held, or going on still, and the guest paused.
        try:
            return await settling.settle()
        except Problem as problem:
            if problem.attributes.get("verdict") != Verdict.NOWHERE:
                raise
            return Verdict.NOWHERE
    return verdict
