"""Carrying out what is done to one host alone, step by step, and taking it back where that fails."""

from collections.abc import Awaitable, Callable, Iterable

from vferry.controller.hosts import open_host
from vferry.controller.state import State
from vferry.host.api import Host, ReleaseClaim, Session, TakeInventory
from vferry.model.host import Inventory
from vferry.model.problem import Exit, Problem
from vferry.plan.host_step import HostStep

STEP_TIMEOUT_S = 180.0
"""The kernel may have to clear a GiB for huge pages, and DPDK clears it once more."""

Tell = Callable[[str], None]
"""Is told each step as it begins, in words."""

SeeTo = Callable[[Host, list[HostStep], Problem], Awaitable[Problem]]
"""Sees to the steps that were begun, the last of which failed; answers what is raised of it."""


async def look(state: State, name: str) -> Inventory:
    """All of a host. Problem ``host-unreachable``."""
    async with open_host(name, state=state) as host:
        return await host.call(TakeInventory(), timeout_s=60.0)


def session_of(inventory: Inventory, operation: str) -> Session:
    """Calls as whoever takes an operation over: a controller that began it before is refused from now on."""
    held = next((claim.epoch for claim in inventory.claims if claim.operation == operation), 0)
    return Session(operation=operation, epoch=held + 1)


async def carry_out(host: Host, steps: Iterable[HostStep], begun: list[HostStep], tell: Tell) -> None:
    """Does one step after the other; `begun` has those that were, to the one that failed. Problems: the steps' own."""
    for step in steps:
        begun.append(step)
        tell(step.summary)
        for operation in step.apply:
            await host.call(operation, timeout_s=STEP_TIMEOUT_S)


async def carry_out_or(host: Host, steps: Iterable[HostStep], tell: Tell, see_to: SeeTo) -> None:
    """Does one step after the other, and where one fails what `see_to` does, unless somebody else goes on with it."""
    begun: list[HostStep] = []
    try:
        await carry_out(host, steps, begun, tell)
    except Problem as problem:
        if problem.code == "stale-controller":
            raise
        raise await see_to(host, begun, problem) from problem


async def take_back(host: Host, begun: list[HostStep], tell: Tell) -> list[str]:
    """Undoes steps, and then releases the claim. What fails, in words."""
    failed = await undo(host, begun, tell)
    if not failed:
        try:
            await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
        except Problem as problem:
            failed.append(f"release: {problem.message}")
    return failed


async def undo(host: Host, begun: list[HostStep], tell: Tell) -> list[str]:
    """Undoes steps, the last one first, with the one that failed. What fails, in words.

    Then the first is left: it is what whoever comes next goes on from.
    """
    tell("undoing what was done")
    failed: list[str] = []
    for step in reversed(begun):
        if failed and step is begun[0]:
            break
        for operation in step.undo:
            try:
                await host.call(operation, timeout_s=STEP_TIMEOUT_S)
            except Problem as problem:
                failed.append(f"{step.name}: {problem.message}")
    return failed


def told(problem: Problem, what: str, remedy: str, exit_: Exit = Exit.OPERATOR) -> Problem:
    """A step's problem, with what became of the rest."""
    return Problem(problem.code, f"{problem.message}. {what}", remedy, exit=exit_, **problem.attributes)


def outcome(problem: Problem, what: str, failed: list[str], again: str) -> Problem:
    """A step's problem after `take_back`: undone, or not all of it, and then `again` says how to."""
    if failed:
        return told(problem, f"Nor could all be undone: {'; '.join(failed)}", again)
    return told(problem, f"All that was done for {what} is undone", problem.remedy, Exit.UNDONE)
