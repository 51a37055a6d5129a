"""Ports that are left on a host's relay: looked at, refused or taken off, and undone where that fails."""

from vferry.controller.hosts import open_host
from vferry.controller.relay import changed, release_strays
from vferry.controller.state import State
from vferry.controller.stepping import STEP_TIMEOUT_S, Tell, carry_out_or, look, outcome, session_of, take_back, told
from vferry.host.api import ClaimResources, Host, ReadDefinition, ReleaseClaim
from vferry.model.guest import GuestState
from vferry.model.host import Inventory
from vferry.model.problem import Problem
from vferry.plan import relay_release
from vferry.plan.host_step import HostStep
from vferry.plan.relay_release import ReleaseAssessment, operation_of, prefix


async def assess(state: State, name: str, mac: str) -> ReleaseAssessment:
    """What stands in the way of taking a port off, or the way. Changes nothing."""
    inventory = await look(state, name)
    return relay_release.assess_release(inventory, mac, await _next_boot(state, inventory, mac))


async def release(state: State, name: str, found: ReleaseAssessment, tell: Tell) -> None:
    """Carries an assessment's steps out, with guest and VF claimed meanwhile. What fails is undone.

    Without a port, only the claim is released that a controller has left which died after the last step. Problems: the
    failed step's own, with exit 4 where all was undone and 5 where not; ``guest-claimed``, ``vf-claimed``; and
    ``relay-changed`` where anything is not as it was when the steps were planned.
    """
    inventory, port = await look(state, name), found.port
    if port is None:
        await release_strays(state, inventory, prefix(found.mac))
        return
    vfs = (port.vf.address,) if port.vf else ()
    again = f"vferry relay release {name} {port.mac}"

    async def see_to(host: Host, begun: list[HostStep], problem: Problem) -> Problem:
        failed = await take_back(host, begun, tell)
        return outcome(problem, "it", failed, f"When the host answers again, ask again: {again}")

    async with open_host(name, session_of(inventory, operation_of(port)), state) as host:
        await host.call(ClaimResources(guest=port.guest, vfs=vfs, slot=False), timeout_s=STEP_TIMEOUT_S)
        if await assess(state, name, port.mac) != found:
            await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
            raise changed(name)
        await carry_out_or(host, found.steps, tell, see_to)
        try:
            await host.call(ReleaseClaim(), timeout_s=STEP_TIMEOUT_S)
        except Problem as problem:
            raise told(problem, f"{port.mac} is off the relay, and still claimed", f"Once more: {again}") from problem


async def _next_boot(state: State, inventory: Inventory, mac: str) -> str | None:
    """With what the guest of a port is to boot, where it runs: an inventory has then what it runs with."""
    port = inventory.relay.port(mac) if inventory.relay else None
    guest = inventory.guest(port.guest) if port else None
    if guest is None or guest.state is GuestState.OFF or not guest.persistent:
        return None
    async with open_host(inventory.name, state=state) as host:
        return (await host.call(ReadDefinition(guest=guest.name))).persistent
