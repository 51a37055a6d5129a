"""Service chains on a host's relay: looked at, refused or made, and undone where that fails."""

import hashlib
from contextlib import AsyncExitStack

from vferry.controller.hosts import open_host
from vferry.controller.relay import changed
from vferry.controller.state import State
from vferry.controller.stepping import STEP_TIMEOUT_S, Tell, look, outcome, session_of, undo
from vferry.host.api import ClaimResources, Host, ReleaseClaim
from vferry.model.problem import Problem
from vferry.plan import relay_chain
from vferry.plan.relay_chain import ChainAssessment, ChainStep, ChainWishes

PREFIX = "chain-"
"""How the ids of operations begin that change chains: one for each guest, which whoever asks again goes on with."""


async def assess(state: State, name: str, wishes: ChainWishes) -> ChainAssessment:
    """What stands in the way of a chain, or the way to it. Changes nothing."""
    return relay_chain.assess_chain(await look(state, name), wishes)


async def assess_none(state: State, name: str, chain: str) -> ChainAssessment:
    """The way back from a chain, of what is on a host. Changes nothing."""
    return relay_chain.assess_no_chain(await look(state, name), chain)


async def change(state: State, name: str, found: ChainAssessment, tell: Tell) -> None:
    """Carries an assessment's steps out, with all guests claimed meanwhile. What fails is undone.

    Problems: the failed step's own, with exit 4 where all was undone and 5 where not; ``guest-claimed``; and
    ``relay-changed`` where ports are not as they were when the steps were planned.
    """
    inventory = await look(state, name)
    async with AsyncExitStack() as stack:
        hosts: dict[str, Host] = {}
        try:
            for guest in dict.fromkeys(each.guest for each in found.steps):
                session = session_of(inventory, operation_of(guest))
                host = await stack.enter_async_context(open_host(name, session, state))
                await host.call(ClaimResources(guest=guest, slot=False), timeout_s=STEP_TIMEOUT_S)
                hosts[guest] = host
            await _check_unchanged(state, name, found)
        except Problem:
            await _release(hosts)
            raise
        begun: list[ChainStep] = []
        try:
            for each in found.steps:
                begun.append(each)
                tell(each.step.summary)
                for operation in each.step.apply:
                    await hosts[each.guest].call(operation, timeout_s=STEP_TIMEOUT_S)
        except Problem as problem:
            if problem.code == "stale-controller":
                raise  # somebody else goes on with it now
            failed = [why for each in reversed(begun) for why in await undo(hosts[each.guest], [each.step], tell)]
            if not failed:
                failed = await _release(hosts)
            raise outcome(problem, "the chain", failed, "When the host answers again, ask for the same") from problem
        if failed := await _release(hosts):
            raise Problem("chain-claimed", f"All is done, but {'; '.join(failed)}", "Ask once more")


def operation_of(guest: str) -> str:
    """The id of what changes a guest's place in chains."""
    return f"{PREFIX}{hashlib.sha256(guest.encode()).hexdigest()[:16]}"


async def _check_unchanged(state: State, name: str, found: ChainAssessment) -> None:
    """Whether the ports are as they were, now that nobody else of vferry can change them."""
    relay = (await look(state, name)).relay
    if relay is None or any(relay.port(port.mac) != port for port in found.ports):
        raise changed(name)


async def _release(hosts: dict[str, Host]) -> list[str]:
    """What could not be released, in words."""
    failed: list[str] = []
    for guest, host in hosts.items():
        try:
            await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
        except Problem as problem:
            failed.append(f"the claim on {guest}: {problem.message}")
    return failed
