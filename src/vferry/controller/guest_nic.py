"""A guest's NIC put on something else: looked at, refused or done, and undone where that fails."""

import secrets

from vferry.controller import nic_moves, running_nic
from vferry.controller.configuration import read_controller_configuration
from vferry.controller.hosts import open_host
from vferry.controller.nic_moves import Way
from vferry.controller.state import State
from vferry.controller.stepping import STEP_TIMEOUT_S, Tell, carry_out, look, outcome, session_of, take_back
from vferry.host.api import (
    ClaimResources,
    Definition,
    Fit,
    Host,
    ReadDefinition,
    ReadGuestNetwork,
    ReleaseClaim,
    ShowGuest,
)
from vferry.model.guest import Guest, GuestState
from vferry.model.host import Claim, Inventory
from vferry.model.problem import Exit, Problem
from vferry.network.nic import stages
from vferry.network.step import Step
from vferry.plan import guest_nic as off
from vferry.plan import running_nic as running
from vferry.plan.facts import Facts, Finding, error, info
from vferry.plan.host_step import HostStep
from vferry.plan.nic_plan import NicAssessment, NicPlan, NicTarget, prefix

NETWORK_TIMEOUT_S = 40.0


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
    begun = next((each.operation for each in inventory.claims if _is_of(each, guest, mac)), None)
    if operation is None and begun is not None and (kept := _kept(state, begun, mac, to)):
        return kept
    elsewhere = operation is None and begun is not None and nic_moves.find(state, begun) is None
    operation = operation or begun or f"{prefix(mac)}{secrets.token_hex(4)}"
    async with open_host(host_name, state=state) as host:
        shown = await host.call(ShowGuest(guest=guest))
        definition = await host.call(ReadDefinition(guest=guest))
        if shown.state is GuestState.OFF:
            return off.assess(inventory, shown, definition.persistent, mac, to, operation, logical_port)
        if logical_port:
            return NicAssessment(findings=(_only_off(shown, logical_port),))
        if elsewhere:
            return NicAssessment(findings=(_begun_elsewhere(shown, mac, operation),))
        facts = await read_facts(host, inventory, shown, definition)
    settings = read_controller_configuration(state).migration
    return running.assess(facts, mac, to, operation, settings.unplug_timeout_s)


async def read_facts(host: Host, inventory: Inventory, guest: Guest, definition: Definition) -> Facts:
    """What planning needs to know of a guest that stays on its host."""
    network, silence = None, None
    if guest.state is GuestState.RUNNING:
        try:
            network = await host.call(ReadGuestNetwork(guest=guest.name), timeout_s=NETWORK_TIMEOUT_S)
        except Problem as problem:
            silence = problem.message
    return Facts(
        source=inventory,
        destination=inventory,
        guest=guest,
        definition=definition,
        fit=Fit(),
        guest_network=network,
        guest_silence=silence,
    )


def _only_off(guest: Guest, logical_port: str) -> Finding:
    return error(
        "guest-not-off",
        f"{guest.name} is {guest.state.value}, and a NIC becomes {logical_port} of OVN's only while its guest is off",
        f"Shut it down (virsh shutdown {guest.name}), ask again, and start it",
    )


def steps(plan: NicPlan) -> tuple[HostStep | Step, ...]:
    """All that a plan does, in order."""
    return stages(plan.move).all if plan.move else plan.steps


async def move(state: State, plan: NicPlan, tell: Tell) -> None:
    """Carries a plan out. What fails is undone, with exit 4; with exit 5 where that fails, too.

    Without steps, only the claim is released that a controller has left which died after the last one. Problem
    ``guest-changed`` where the guest is not as it was when this was planned.
    """
    if plan.move is not None:
        await running_nic.move(state, plan, tell, lambda _host: _check_unchanged(state, plan))
        return
    inventory = await look(state, plan.host)
    if not plan.steps and all(claim.operation != plan.operation for claim in inventory.claims):
        return
    async with open_host(plan.host, session_of(inventory, plan.operation), state) as host:
        await host.call(ClaimResources(guest=plan.guest, vfs=plan.vfs, slot=False), timeout_s=STEP_TIMEOUT_S)
        try:
            await _check_unchanged(state, plan)
        except Problem:
            await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
            raise
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


async def _check_unchanged(state: State, plan: NicPlan) -> None:
    """Whether it would be planned so still, now that nobody else of vferry can change the guest."""
    again = await assess(state, plan.host, plan.guest, plan.mac, plan.to, plan.operation, plan.logical_port)
    if again.plan != plan:
        why = again.errors[0].message if again.errors else "its definition or its host has changed"
        raise Problem(
            "guest-changed",
            f"{plan.guest} is not as it was a moment ago: {why}",
            "Ask again",
            exit=Exit.REFUSED,
        )


def _is_of(claim: Claim, guest: str, mac: str) -> bool:
    return claim.operation.startswith(prefix(mac)) and claim.guest in (None, guest)


def _kept(state: State, operation: str, mac: str, to: NicTarget) -> NicAssessment | None:
    """What was begun with a guest that runs, and is gone on with."""
    kept = nic_moves.find(state, operation)
    if kept is None or kept.way is Way.PLANNED:
        return None
    swap, there = kept.move.swap, kept.move.to
    if there is not to:
        finding = error(
            "nic-begun",
            f"{mac} of {swap.guest} is on its way to {there.described}, by an operation that was left",
            f"See that to its end first: vferry guest nic {swap.guest} {mac} --to {there}",
        )
        return NicAssessment(findings=(finding,))
    plan = NicPlan(guest=swap.guest, mac=mac, to=to, host=swap.host, operation=operation, vfs=kept.vfs, move=kept.move)
    note = info("nic-begun", f"Goes on with {operation}, which was begun and left")
    return NicAssessment(findings=(note,), plan=plan)


def _begun_elsewhere(guest: Guest, mac: str, operation: str) -> Finding:
    return error(
        "nic-begun-elsewhere",
        f"{mac} of {guest.name} was begun to be moved by {operation}, of which nothing is known here",
        f"Ask where that was begun; or, if it was while {guest.name} was off: shut it down, and ask again",
    )
