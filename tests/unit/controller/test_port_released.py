"""A port taken off a relay that no guest has, through a true server, with claims as they are, over a host in memory."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec import Struct
from msgspec.structs import replace

from fakes.relay import HOST, with_pf
from vferry.cli import relay as cli
from vferry.controller import relay, relay_release
from vferry.controller.hosts import add_host
from vferry.controller.state import State
from vferry.host import api
from vferry.host.api import Operation, Session
from vferry.host.service_fake import FakeAgent, fake_agent
from vferry.model.guest import Guest, GuestState, Nic
from vferry.model.host import MigrationEndpoint, VfSettings
from vferry.model.problem import Exit, Problem
from vferry.model.relay import Relay, RelayKind, RelayPort, RelayState, RelayVf, RelayView
from vferry.plan.relay_release import ReleaseAssessment, operation_of

MAC = "52:54:00:aa:00:0b"
VF = HOST.pfs[0].vfs[1]
OWN = RelayVf(pf=VF.pf, index=VF.index, address=VF.address)
PORT = RelayPort(guest="web", mac=MAC, socket="/run/vferry-relay/web.sock", vf=OWN)
ON = VfSettings(mac=MAC, trust=True, spoof_check=False)
RELAY = Relay(
    operation="relay-1",
    state=RelayState.ENABLED,
    kind=RelayKind.DIRECT,
    uplinks=("pf0",),
    cores=(7,),
    ports=(PORT,),
)
ON_AIR = replace(
    with_pf(HOST, "pf0", vfs=(HOST.pfs[0].vfs[0], replace(VF, settings=ON))),
    migration=MigrationEndpoint(address="127.0.0.1", ports=(49200, 49215)),
    relay=RELAY,
)
GUEST = Guest(name="web", uuid="u", host="host1", state=GuestState.RUNNING)
NIC = Nic(mac=MAC, model="virtio", alias="", socket=PORT.socket)


def name_of(asked: Operation[Any]) -> str:
    """What takes another one back has its name, with a dash."""
    if isinstance(asked, api.SetVf) and asked.settings == ON:
        return "-SetVf"
    return "-LeaveRelay" if isinstance(asked, api.JoinRelay) else type(asked).__name__


class LeftHost:
    """Its port and its VF's settings; `fails` names what is refused, and `late` has it done all the same."""

    def __init__(self, agent: FakeAgent) -> None:
        self.agent = agent
        self.fails: set[str] = set()
        self.late = False
        self.order: list[str] = []
        agent.handlers.vfs = {VF.address: "web"}
        asked: tuple[type[Operation[Any]], ...] = (api.SetVf, api.LeaveRelay, api.JoinRelay)
        agent.handlers.answers |= dict.fromkeys(asked, self.answer)
        agent.handlers.answers[api.ReadRelay] = lambda _: RelayView(relay=agent.handlers.inventory.relay)
        agent.handlers.answers[api.ReadDefinition] = lambda _: api.Definition(live="", persistent=self.definition)
        self.definition = "<domain/>"

    def answer(self, asked: Operation[Any]) -> Struct:
        name = name_of(asked)
        self.order.append(name)
        (claim,) = self.agent.claims.all()
        assert (claim.guest, claim.vfs, claim.slot) == ("web", (VF.address,), False)
        if name not in self.fails or self.late:
            self._do(asked)
        if name in self.fails:
            raise Problem("refused", f"{name} does not go", "Do something", exit=Exit.REFUSED)
        return api.Done()

    def _do(self, asked: Operation[Any]) -> None:
        handlers = self.agent.handlers
        match asked:
            case api.SetVf(settings=settings):
                vfs = tuple(replace(vf, settings=settings) if vf.index == 1 else vf for vf in HOST.pfs[0].vfs)
                handlers.inventory = with_pf(handlers.inventory, "pf0", vfs=vfs)
            case api.LeaveRelay():
                handlers.inventory = replace(handlers.inventory, relay=replace(RELAY, ports=()))
            case api.JoinRelay(port=port):
                handlers.inventory = replace(handlers.inventory, relay=replace(RELAY, ports=(port,)))

    def check_off(self) -> None:
        found = self.agent.handlers.inventory
        settings = found.pfs[0].vfs[1].settings
        assert (found.relay, settings.trust) == (replace(RELAY, ports=()), False)
        assert self.agent.claims.all() == ()

    def check_untouched(self) -> None:
        assert self.agent.handlers.inventory == ON_AIR
        assert self.agent.claims.all() == ()


@pytest.fixture
async def host(tmp_path: Path, state: State) -> AsyncIterator[LeftHost]:
    async with fake_agent(tmp_path / "host1", ON_AIR) as agent:
        await add_host("host1", agent.uri, state=state)
        yield LeftHost(agent)


async def plan(state: State) -> ReleaseAssessment:
    found = await relay_release.assess(state, "host1", MAC)
    assert not found.errors, found.errors
    return found


async def release(state: State) -> None:
    await relay_release.release(state, "host1", await plan(state), lambda _: None)


STEPS = ["SetVf", "LeaveRelay"]


async def test_it_comes_off_and_its_vf_is_wiped(host: LeftHost, state: State) -> None:
    await release(state)
    assert host.order == STEPS
    host.check_off()
    await release(state)
    assert host.order == STEPS


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", STEPS)
async def test_what_fails_is_undone(host: LeftHost, state: State, name: str, *, late: bool) -> None:
    host.fails.add(name)
    host.late = late
    with pytest.raises(Problem, match=f"{name} does not go. All that was done for it is undone") as caught:
        await release(state)
    assert (caught.value.code, caught.value.exit) == ("refused", Exit.UNDONE)
    begun = STEPS[: STEPS.index(name) + 1]
    assert host.order == [*begun, *(f"-{each}" for each in reversed(begun))]
    host.check_untouched()


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("stuck", STEPS)
async def test_what_cannot_be_undone_is_said_and_gone_on_with(
    host: LeftHost, state: State, name: str, stuck: str
) -> None:
    if STEPS.index(stuck) > STEPS.index(name):
        return
    host.fails |= {name, f"-{stuck}"}
    with pytest.raises(Problem, match="Nor could all be undone") as caught:
        await release(state)
    assert caught.value.exit == Exit.OPERATOR
    assert f"vferry relay release host1 {MAC}" in caught.value.remedy
    assert [claim.operation for claim in host.agent.claims.all()] == [operation_of(PORT)]
    host.fails.clear()
    await release(state)
    host.check_off()


async def test_a_claim_that_cannot_be_released_goes_where_it_is_asked_for_again(
    host: LeftHost, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sticks(_: str) -> None:
        raise Problem("operation-busy", "It is still at work", "Try again", exit=Exit.OPERATOR)

    with monkeypatch.context() as patch:
        patch.setattr(host.agent.handlers, "released", sticks)
        with pytest.raises(Problem, match="is off the relay, and still claimed") as caught:
            await release(state)
    assert (caught.value.exit, len(host.agent.claims.all())) == (Exit.OPERATOR, 1)
    await release(state)
    assert host.order == STEPS
    host.check_off()


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_a_controller_that_died_is_gone_on_from(host: LeftHost, state: State, steps: int) -> None:
    host.agent.claims.claim(Session(operation=operation_of(PORT)), "web", (VF.address,), slot=False)
    for step in (await plan(state)).steps[:steps]:
        for operation in step.apply:
            host.answer(operation)
    await release(state)
    host.check_off()


async def test_its_claim_goes_where_the_relay_is_gone_by_now(host: LeftHost, state: State) -> None:
    host.agent.claims.claim(Session(operation=operation_of(PORT)), "web", (VF.address,), slot=False)
    host.agent.handlers.inventory = replace(ON_AIR, relay=None)
    await relay.disable(state, "host1", lambda _: None)
    assert host.agent.claims.all() == ()


@pytest.mark.parametrize("comes", ["a migration", "a definition", "a port of another guest"])
async def test_what_comes_meanwhile_is_left_alone(host: LeftHost, state: State, comes: str) -> None:
    found, handlers = await plan(state), host.agent.handlers
    if comes == "a migration":
        host.agent.claims.claim(Session(operation="op-1"), "web")
    elif comes == "a definition":
        handlers.inventory = replace(ON_AIR, guests=(replace(GUEST, nics=(NIC,)),))
    else:
        handlers.inventory = replace(ON_AIR, relay=replace(RELAY, ports=(replace(PORT, guest="db"),)))
    with pytest.raises(Problem) as caught:
        await relay_release.release(state, "host1", found, lambda _: None)
    code = "guest-claimed" if comes == "a migration" else "relay-changed"
    assert (caught.value.code, caught.value.exit, host.order) == (code, Exit.REFUSED, [])
    assert operation_of(PORT) not in [claim.operation for claim in host.agent.claims.all()]


@pytest.mark.parametrize(("path", "code"), [(PORT.socket, "release-nic-defined"), ("/run/other", None)])
async def test_what_a_guest_that_runs_is_to_boot_with_is_asked(
    host: LeftHost, state: State, path: str, code: str | None
) -> None:
    host.agent.handlers.inventory = replace(ON_AIR, guests=(GUEST,))
    host.definition = f"<domain><devices><interface><source path='{path}'/></interface></devices></domain>"
    found = await relay_release.assess(state, "host1", MAC)
    assert [each.code for each in found.errors] == ([code] if code else [])


# --- the command -----------------------------------------------------------------------------------------


async def run(*arguments: str) -> Result:
    """In a thread: it has an event loop of its own, as in its own process."""
    return await asyncio.to_thread(CliRunner().invoke, cli.command, arguments, catch_exceptions=False)


async def test_the_command(host: LeftHost, state: State) -> None:
    stays = await run("disable", "host1")
    assert (stays.exit_code, f"vferry relay release host1 {MAC}" in stays.output) == (Exit.REFUSED, True)
    shown = await run("show", "host1")
    assert f"No guest of host1 has {MAC} any more" in shown.output
    dry = await run("release", "host1", MAC.upper(), "--dry-run")
    assert (dry.exit_code, host.order) == (0, [])
    assert f"take {MAC} of web off the relay, and give VF 1 of pf0 back" in dry.output
    made = await run("release", "host1", MAC.upper())
    assert (made.exit_code, made.output.splitlines()[-1]) == (0, f"{MAC} of web is off the relay of host1")
    host.check_off()
    again = await run("release", "host1", MAC)
    assert (again.exit_code, f"The relay of host1 has no port for {MAC}" in again.output) == (0, True)
    assert (await run("release", "host1", "web")).exit_code == Exit.USAGE


async def test_the_command_for_what_a_guest_has(host: LeftHost, state: State) -> None:
    host.agent.handlers.inventory = replace(ON_AIR, guests=(replace(GUEST, nics=(NIC,), state=GuestState.OFF),))
    refused = await run("release", "host1", MAC)
    assert (refused.exit_code, host.order) == (Exit.REFUSED, [])
    assert f"vferry guest nic web {MAC} --to vf" in refused.output
    assert "any more" not in (await run("show", "host1")).output


async def test_who_is_pinned_to_where_it_forwards_is_shown(host: LeftHost, state: State) -> None:
    pinned = replace(GUEST, nics=(NIC,), pins=((7,), (6, 7)))
    host.agent.handlers.inventory = replace(ON_AIR, guests=(pinned,))
    shown = (await run("show", "host1")).output
    assert "The guests web are pinned to where the relay of host1 forwards (CPU 7)" in shown
    assert "may run there (CPU 7)" in shown
    assert "pinned" not in (await run("show", "host1", "--json")).output


async def test_the_relay_is_shown_where_its_guests_are_not_known(host: LeftHost, state: State) -> None:
    def silent(_: object) -> Struct:
        raise Problem("libvirt-silent", "libvirt does not answer", "Start it")

    host.agent.handlers.answers[api.TakeInventory] = silent
    shown = await run("show", "host1")
    assert (shown.exit_code, "VF 1 of pf0" in shown.output) == (0, True)
