"""A host's relay as the operator asks for it: looked at, refused or made, and undone where that fails."""

import secrets

from msgspec.structs import replace

from vferry.controller.hosts import open_host
from vferry.controller.state import State
from vferry.controller.stepping import (
    STEP_TIMEOUT_S,
    SeeTo,
    Tell,
    carry_out,
    carry_out_or,
    look,
    outcome,
    session_of,
    take_back,
    told,
    undo,
)
from vferry.host.api import ClaimResources, Host, ReadRelay, ReleaseClaim, Session
from vferry.model.host import Inventory
from vferry.model.problem import Exit, Problem
from vferry.model.relay import Relay, RelayState, RelayView
from vferry.plan import relay_cpus, relay_gateway, relay_release
from vferry.plan.facts import Finding
from vferry.plan.host_step import HostStep
from vferry.plan.relay import RelayAssessment, RelayPlan, RelayWishes, assess_disabling, assess_enabling
from vferry.plan.relay_gateway import GatewayWishes

PREFIX = "relay-"
"""How the ids of operations begin that make relays."""


async def view(state: State, name: str) -> RelayView:
    """The relay of a host as it works now."""
    async with open_host(name, state=state) as host:
        return await host.call(ReadRelay())


async def about(state: State, name: str) -> tuple[Finding, ...]:
    """What is to be said of a host's relay and its guests; nothing where these are not known."""
    try:
        inventory = await look(state, name)
    except Problem:
        return ()
    return (*relay_release.about(inventory), *relay_cpus.about(inventory))


async def assess(state: State, name: str, uplinks: tuple[str, ...], *, switched: bool) -> RelayAssessment:
    """What stands in the way of a relay, or the way to it. Changes nothing."""
    wishes = RelayWishes(operation=f"{PREFIX}{secrets.token_hex(4)}", uplinks=uplinks, switched=switched)
    return assess_enabling(await look(state, name), wishes)


async def enable(state: State, name: str, plan: RelayPlan, tell: Tell) -> None:
    """Makes a relay. What fails is undone, unless the relay was there before: then it is left for another try.

    Problems: the failed step's own, with exit 4 where all was undone and 5 where not.
    """
    inventory = await look(state, name)
    made = inventory.relay
    repairs = made is not None and (made.operation, made.state) == (plan.relay.operation, RelayState.ENABLED)

    async def see_to(host: Host, begun: list[HostStep], problem: Problem) -> Problem:
        if repairs:
            return _left(name, plan.relay, problem)
        failed = await take_back(host, begun, tell)
        again = f"When the host answers again, take the rest back: vferry relay disable {name}"
        return outcome(problem, "the relay", failed, again)

    await _carried_out(state, name, session_of(inventory, plan.relay.operation), plan, tell, see_to)


async def assess_gateway(state: State, name: str, wishes: GatewayWishes) -> RelayAssessment:
    """What stands in the way of a VLAN's gateway, or the way to it. Changes nothing."""
    return relay_gateway.assess_gateway(await look(state, name), wishes)


async def assess_no_gateway(state: State, name: str, vlan: int, bridge: str | None) -> RelayAssessment:
    """The way back from a VLAN's gateway. Changes nothing."""
    return relay_gateway.assess_no_gateway(await look(state, name), vlan, bridge)


async def change(state: State, name: str, plan: RelayPlan, tell: Tell) -> None:
    """Changes a relay that is made, and stays so: what fails is undone, and its claim stays.

    Problems: the failed step's own, with exit 4 where all was undone and 5 where not; ``relay-changed`` where it is
    another one than it was when the plan was made.
    """
    inventory = await look(state, name)
    if inventory.relay is None or replace(inventory.relay, ports=()) != replace(plan.relay, ports=()):
        raise changed(name)

    async def see_to(host: Host, begun: list[HostStep], problem: Problem) -> Problem:
        failed = await undo(host, begun, tell)
        return outcome(problem, "it", failed, f"When the host answers again, ask again for {name}")

    await _carried_out(state, name, session_of(inventory, plan.relay.operation), plan, tell, see_to)


def changed(name: str) -> Problem:
    """A relay is another one than it was when its change was planned."""
    return Problem("relay-changed", f"The relay of {name} has been changed meanwhile", "Ask again", exit=Exit.REFUSED)


async def disable(state: State, name: str, tell: Tell) -> RelayAssessment:
    """Takes a relay back, and its claim. What fails is left for another try: it only goes forward.

    Problems: the failed step's own, with exit 5.
    """
    inventory = await look(state, name)
    assessment = assess_disabling(inventory, await view(state, name))
    if assessment.plan is None:
        if not assessment.errors:
            await release_strays(state, inventory, PREFIX, relay_release.PREFIX)
        return assessment
    async with open_host(name, session_of(inventory, assessment.plan.relay.operation), state) as host:
        await host.call(ClaimResources(vfs=assessment.plan.relay.addresses, slot=False), timeout_s=STEP_TIMEOUT_S)
        try:
            await carry_out(host, assessment.plan.steps, [], tell)
            await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
        except Problem as problem:
            raise _half_gone(name, problem) from problem
    return assessment


async def _carried_out(state: State, name: str, session: Session, plan: RelayPlan, tell: Tell, see_to: SeeTo) -> None:
    """Claims a relay's VFs, and does a plan's steps. Where one fails, `see_to` answers what is raised of it."""
    async with open_host(name, session, state) as host:
        await host.call(ClaimResources(vfs=plan.relay.addresses, slot=False), timeout_s=STEP_TIMEOUT_S)
        await carry_out_or(host, plan.steps, tell, see_to)


async def release_strays(state: State, inventory: Inventory, *prefixes: str) -> None:
    """Claims for what was never begun, or is gone, by how their ids begin: whoever made them died in between."""
    for claim in inventory.claims:
        if not claim.slot and claim.operation.startswith(prefixes):
            session = Session(operation=claim.operation, epoch=claim.epoch + 1)
            async with open_host(inventory.name, session, state) as host:
                await host.call(ClaimResources(vfs=claim.vfs, slot=False))
                await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)


def _left(name: str, made: Relay, problem: Problem) -> Problem:
    enable = f"vferry relay enable {name} --uplink {','.join(made.uplinks)}{' --switched' if made.switched else ''}"
    again = f"Then once more: {enable}; or take it back: vferry relay disable {name}"
    return told(problem, f"The relay of {name} is left as it is, in part", f"{problem.remedy}. {again}")


def _half_gone(name: str, problem: Problem) -> Problem:
    again = f"Then once more: vferry relay disable {name}"
    return told(problem, f"The relay of {name} is taken back in part", f"{problem.remedy}. {again}")
