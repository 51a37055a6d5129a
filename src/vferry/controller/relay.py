"""A host's relay as the operator asks for it: looked at, refused or made, and undone where that fails."""

import secrets
from collections.abc import Callable

from msgspec.structs import replace

from vferry.controller.hosts import open_host
from vferry.controller.state import State
from vferry.host.api import ClaimResources, Host, ReadRelay, ReleaseClaim, Session, TakeInventory
from vferry.model.host import Inventory
from vferry.model.problem import Exit, Problem
from vferry.model.relay import RelayState, RelayView
from vferry.plan.relay import RelayAssessment, RelayPlan, RelayWishes, assess_disabling, assess_enabling
from vferry.plan.relay_steps import RelayStep

STEP_TIMEOUT_S = 180.0
"""The kernel may have to clear a GiB for huge pages, and DPDK clears it once more."""

Tell = Callable[[str], None]
"""Is told each step as it begins, in words."""


async def look(state: State, name: str) -> Inventory:
    """All of a host. Problem ``host-unreachable``."""
    async with open_host(name, state=state) as host:
        return await host.call(TakeInventory(), timeout_s=60.0)


async def view(state: State, name: str) -> RelayView:
    """The relay of a host as it works now."""
    async with open_host(name, state=state) as host:
        return await host.call(ReadRelay())


async def assess(state: State, name: str, uplinks: tuple[str, ...], *, switched: bool) -> RelayAssessment:
    """What stands in the way of a relay, or the way to it. Changes nothing."""
    wishes = RelayWishes(operation=f"relay-{secrets.token_hex(4)}", uplinks=uplinks, switched=switched)
    return assess_enabling(await look(state, name), wishes)


async def enable(state: State, name: str, plan: RelayPlan, tell: Tell) -> None:
    """Makes a relay. What fails is undone, unless the relay was there before: then it is left for another try.

    Problems: the failed step's own, with exit 4 where all was undone and 5 where not.
    """
    inventory = await look(state, name)
    whole = replace(plan.relay, state=RelayState.ENABLED)
    repairs = inventory.relay == whole
    async with open_host(name, _session(inventory, plan.relay.operation), state) as host:
        await host.call(ClaimResources(vfs=plan.relay.addresses, slot=False), timeout_s=STEP_TIMEOUT_S)
        begun: list[RelayStep] = []
        try:
            for step in plan.steps:
                begun.append(step)
                tell(step.summary)
                await _apply(host, step)
        except Problem as problem:
            if problem.code == "stale-controller":
                raise  # somebody else goes on with it now
            if repairs:
                raise _left(name, problem) from problem
            tell("undoing what was done")
            failed = await _take_back(host, begun)
            if failed:
                raise _not_undone(name, problem, failed) from problem
            raise _undone(problem) from problem


async def disable(state: State, name: str, tell: Tell) -> RelayAssessment:
    """Takes a relay back, and its claim. What fails is left for another try: it only goes forward.

    Problems: the failed step's own, with exit 5.
    """
    inventory = await look(state, name)
    assessment = assess_disabling(inventory)
    if assessment.plan is None:
        if not assessment.errors:
            await _release_strays(state, inventory)
        return assessment
    async with open_host(name, _session(inventory, assessment.plan.relay.operation), state) as host:
        await host.call(ClaimResources(vfs=assessment.plan.relay.addresses, slot=False), timeout_s=STEP_TIMEOUT_S)
        try:
            for step in assessment.plan.steps:
                tell(step.summary)
                await _apply(host, step)
            await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
        except Problem as problem:
            raise _half_gone(name, problem) from problem
    return assessment


async def _apply(host: Host, step: RelayStep) -> None:
    for operation in step.apply:
        await host.call(operation, timeout_s=STEP_TIMEOUT_S)


async def _take_back(host: Host, begun: list[RelayStep]) -> list[str]:
    """Undoes steps, the last one first, with the one that failed. What of it does not succeed, in words.

    What the relay is stays remembered then: whoever comes next can go on.
    """
    failed: list[str] = []
    for step in reversed(begun):
        if failed and step is begun[0]:
            break
        for operation in step.undo:
            try:
                await host.call(operation, timeout_s=STEP_TIMEOUT_S)
            except Problem as problem:
                failed.append(f"{step.name}: {problem.message}")
    if not failed:
        try:
            await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
        except Problem as problem:
            failed.append(f"release: {problem.message}")
    return failed


async def _release_strays(state: State, inventory: Inventory) -> None:
    """Claims of a relay that was never begun, or is gone: whoever made them died in between."""
    for claim in inventory.claims:
        if not claim.slot:
            session = Session(operation=claim.operation, epoch=claim.epoch + 1)
            async with open_host(inventory.name, session, state) as host:
                await host.call(ClaimResources(vfs=claim.vfs, slot=False))
                await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)


def _session(inventory: Inventory, operation: str) -> Session:
    """Calls as whoever takes the relay over: a controller that began it before is refused from now on."""
    held = next((claim.epoch for claim in inventory.claims if claim.operation == operation), 0)
    return Session(operation=operation, epoch=held + 1)


def _undone(problem: Problem) -> Problem:
    return _told(problem, "All that was done for the relay is undone", problem.remedy, Exit.UNDONE)


def _not_undone(name: str, problem: Problem, failed: list[str]) -> Problem:
    remedy = f"When the host answers again, take the rest back: vferry relay disable {name}"
    return _told(problem, f"Nor could all be undone: {'; '.join(failed)}", remedy)


def _left(name: str, problem: Problem) -> Problem:
    again = f"Then once more: vferry relay enable {name}; or take it back: vferry relay disable {name}"
    return _told(problem, f"The relay of {name} is left as it is, in part", f"{problem.remedy}. {again}")


def _half_gone(name: str, problem: Problem) -> Problem:
    again = f"Then once more: vferry relay disable {name}"
    return _told(problem, f"The relay of {name} is taken back in part", f"{problem.remedy}. {again}")


def _told(problem: Problem, outcome: str, remedy: str, exit_: Exit = Exit.OPERATOR) -> Problem:
    """A step's problem, with what became of the relay."""
    return Problem(problem.code, f"{problem.message}. {outcome}", remedy, exit=exit_, **problem.attributes)
