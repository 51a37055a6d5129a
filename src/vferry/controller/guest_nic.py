"""A NIC of a guest that is off, put on something else: looked at, refused or done, and undone where that fails."""

import secrets

from vferry.controller.hosts import open_host
from vferry.controller.state import State
from vferry.controller.stepping import STEP_TIMEOUT_S, Tell, carry_out, look, outcome, session_of, take_back
from vferry.host.api import ClaimResources, Host, ReadDefinition, ReleaseClaim, ShowGuest
from vferry.model.problem import Exit, Problem
from vferry.plan.guest_nic import NicAssessment, NicPlan, NicTarget, prefix
from vferry.plan.guest_nic import assess as assess_nic
from vferry.plan.host_step import HostStep


async def assess(
    state: State,
    host_name: str,
    guest: str,
    mac: str,
    to: NicTarget,
    operation: str | None = None,
    logical_port: str | None = None,
) -> NicAssessment:
    """What stands in the way, or the way; changes nothing.

    `operation`: in whose name; None for one that was begun and left, or else a new one.
    """
    inventory = await look(state, host_name)
    begun = (claim.operation for claim in inventory.claims if claim.operation.startswith(prefix(mac)))
    operation = operation or next(begun, f"{prefix(mac)}{secrets.token_hex(4)}")
    async with open_host(host_name, state=state) as host:
        shown = await host.call(ShowGuest(guest=guest))
        definition = await host.call(ReadDefinition(guest=guest))
    return assess_nic(inventory, shown, definition.persistent, mac, to, operation, logical_port)


async def move(state: State, plan: NicPlan, tell: Tell) -> None:
    """Carries a plan out. What fails is undone, with exit 4; with exit 5 where that fails, too.

    Without steps, only the claim is released that a controller has left which died after the last one. Problem
    ``guest-changed`` where the guest is not as it was when this was planned.
    """
    inventory = await look(state, plan.host)
    if not plan.steps and all(claim.operation != plan.operation for claim in inventory.claims):
        return
    async with open_host(plan.host, session_of(inventory, plan.operation), state) as host:
        await host.call(ClaimResources(guest=plan.guest, vfs=plan.vfs, slot=False), timeout_s=STEP_TIMEOUT_S)
        await _check_unchanged(state, plan, host)
        begun: list[HostStep] = []
        try:
            await carry_out(host, plan.steps, begun, tell)
            await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
        except Problem as problem:
            if problem.code == "stale-controller":
                raise  # somebody else goes on with it now
            failed = await take_back(host, begun, tell)
            again = f"When the host answers again, once more: vferry guest nic {plan.guest} {plan.mac} --to {plan.to}"
            raise outcome(problem, f"{plan.mac} of {plan.guest}", failed, again) from problem


async def _check_unchanged(state: State, plan: NicPlan, host: Host) -> None:
    """Whether it would be planned so still, now that nobody else of vferry can change the guest."""
    again = await assess(state, plan.host, plan.guest, plan.mac, plan.to, plan.operation, plan.logical_port)
    if again.plan != plan:
        await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
        why = again.errors[0].message if again.errors else "its definition or its host has changed"
        raise Problem(
            "guest-changed",
            f"{plan.guest} is not as it was a moment ago: {why}",
            "Ask again",
            exit=Exit.REFUSED,
        )
