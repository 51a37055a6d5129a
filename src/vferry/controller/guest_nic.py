"""What is to be done to put a guest's NIC on something else: looked at, refused or planned, or gone on with."""

import secrets

from msgspec import Struct
from msgspec.structs import replace

from vferry.controller import nic_moves, northbound
from vferry.controller.configuration import read_controller_configuration
from vferry.controller.hosts import open_host
from vferry.controller.nic_moves import KeptMove, Way
from vferry.controller.state import State
from vferry.controller.stepping import look
from vferry.host.api import Definition, Fit, Host, ReadDefinition, ReadGuestNetwork, ShowGuest
from vferry.model.guest import Guest, GuestState
from vferry.model.host import Claim, Inventory
from vferry.model.problem import Problem
from vferry.network.nic import stages
from vferry.network.step import Step
from vferry.plan import guest_nic as off
from vferry.plan import running_nic as running
from vferry.plan.facts import Facts, Finding, error, info
from vferry.plan.host_step import HostStep
from vferry.plan.nic_plan import NicAssessment, NicPlan, NicTarget, prefix
from vferry.plan.nic_port import AskedPort

NETWORK_TIMEOUT_S = 40.0


class Asked(Struct, frozen=True, kw_only=True):
    """What is to become of which NIC, and in whose name."""

    host: str
    guest: str
    mac: str
    to: NicTarget
    operation: str
    logical_port: str | None = None


async def assess(
    state: State, host_name: str, guest: str, mac: str, to: NicTarget, logical_port: str | None = None
) -> NicAssessment:
    """What stands in the way, or the way; changes nothing. One that was begun, and left, is gone on with."""
    inventory = await look(state, host_name)
    begun = next((each.operation for each in inventory.claims if _is_of(each, guest, mac)), None)
    asked = Asked(
        host=host_name,
        guest=guest,
        mac=mac,
        to=to,
        operation=begun or f"{prefix(mac)}{secrets.token_hex(4)}",
        logical_port=logical_port,
    )
    if begun is None:
        return await _plan(state, inventory, asked)
    return await resume(state, inventory, asked, nic_moves.find(state, begun))


async def reassess(state: State, plan: NicPlan) -> NicAssessment:
    """What stands in the way now of what was planned, or the way as it is now."""
    asked = Asked(
        host=plan.host,
        guest=plan.guest,
        mac=plan.mac,
        to=plan.to,
        operation=plan.operation,
        logical_port=plan.logical_port,
    )
    return await resume(state, await look(state, plan.host), asked, nic_moves.find(state, plan.operation))


async def resume(state: State, inventory: Inventory, asked: Asked, kept: KeptMove | None) -> NicAssessment:
    """The way of one that was begun, from where it was left; planned anew where nothing of it was done."""
    if kept is None:
        return await _plan(state, inventory, asked, begun_elsewhere=True)
    asked = _as_begun(asked, kept.plan)
    if kept.way is Way.PLANNED:
        return await _plan(state, inventory, asked)
    if _ends_first(asked, kept.plan):
        return NicAssessment(findings=(_begun(kept.plan),))
    if kept.plan.move:
        note = info("nic-begun", f"Goes on with {kept.plan.operation}, which was begun and left")
        return NicAssessment(findings=(note,), plan=kept.plan)
    found = await _plan(state, inventory, asked, begun_while_off=True)
    held = any(claim.operation == asked.operation for claim in inventory.claims)
    if found.plan and not found.plan.steps and kept.plan.to is asked.to and held:
        # It is defined so already, and what comes after that may not be done.
        return replace(found, plan=kept.whole)
    return found


async def _plan(
    state: State,
    inventory: Inventory,
    asked: Asked,
    *,
    begun_elsewhere: bool = False,
    begun_while_off: bool = False,
) -> NicAssessment:
    """A guest that runs is not moved by what was begun otherwise."""
    async with open_host(asked.host, state=state) as host:
        shown = await host.call(ShowGuest(guest=asked.guest))
        definition = await host.call(ReadDefinition(guest=asked.guest))
        if shown.state is GuestState.OFF:
            port = await _ask_ovn(state, asked.logical_port) if asked.logical_port else None
            return off.assess(inventory, shown, definition.persistent, asked.mac, asked.to, asked.operation, port)
        if asked.logical_port:
            return NicAssessment(findings=(_only_off(shown, asked.logical_port),))
        if begun_elsewhere or begun_while_off:
            finding = _begun_elsewhere(shown, asked) if begun_elsewhere else _begun_while_off(shown, asked)
            return NicAssessment(findings=(finding,))
        facts = await read_facts(host, inventory, shown, definition)
    settings = read_controller_configuration(state).migration
    return running.assess(facts, asked.mac, asked.to, asked.operation, settings.unplug_timeout_s)


async def _ask_ovn(state: State, name: str) -> AskedPort:
    said = await northbound.ask(state, [name])
    if isinstance(said, str):
        return AskedPort(name=name, silence=said)
    return AskedPort(name=name, known=said.get(name))


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


def steps(plan: NicPlan) -> tuple[HostStep | Step, ...]:
    """All that a plan does, in order."""
    return stages(plan.move).all if plan.move else plan.steps


def _is_of(claim: Claim, guest: str, mac: str) -> bool:
    return claim.operation.startswith(prefix(mac)) and claim.guest in (None, guest)


def _as_begun(asked: Asked, begun: NicPlan) -> Asked:
    """With the port of OVN's that it was begun as, where none is named: it would go past that port's rules."""
    if asked.to is not begun.to:
        return asked
    return replace(asked, logical_port=asked.logical_port or begun.logical_port)


def _ends_first(asked: Asked, begun: NicPlan) -> bool:
    """Whether this is not what was begun. A guest that is off may go to something else from where it is."""
    if asked.to is not begun.to:
        return begun.move is not None
    return asked.logical_port != begun.logical_port


def _begun(plan: NicPlan) -> Finding:
    return error(
        "nic-begun",
        f"{plan.mac} of {plan.guest} is on its way to {plan.described}, by an operation that was left",
        f"See that to its end first: {plan.command}",
    )


def _only_off(guest: Guest, logical_port: str) -> Finding:
    return error(
        "guest-not-off",
        f"{guest.name} is {guest.state.value}, and a NIC becomes {logical_port} of OVN's only while its guest is off",
        f"Shut it down (virsh shutdown {guest.name}), ask again, and start it",
    )


def _begun_elsewhere(guest: Guest, asked: Asked) -> Finding:
    return error(
        "nic-begun-elsewhere",
        f"{asked.mac} of {guest.name} was begun to be moved by {asked.operation}, of which nothing is known here",
        f"Ask where that was begun; or, if it was while {guest.name} was off: shut it down, and ask again",
    )


def _begun_while_off(guest: Guest, asked: Asked) -> Finding:
    return error(
        "nic-begun-off",
        f"{asked.mac} of {guest.name} was begun to be moved by {asked.operation} while {guest.name} was off, "
        f"and now it is {guest.state.value}",
        f"Shut it down (virsh shutdown {guest.name}), then: vferry operation recover {asked.operation}",
    )
