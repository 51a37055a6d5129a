"""A service chain made and taken back through a true server, with claims as they are, over a host in memory."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec import Struct
from msgspec.structs import replace

from fakes.relay import HOST
from vferry.cli import relay as cli
from vferry.controller import relay_chain
from vferry.controller.hosts import add_host
from vferry.controller.state import State
from vferry.host import api
from vferry.host.api import Session
from vferry.host.service_fake import FakeAgent, fake_agent
from vferry.model.host import MigrationEndpoint
from vferry.model.problem import Exit, Problem
from vferry.model.relay import Relay, RelayBridge, RelayKind, RelayPort, RelayState, RelayUplink, SwitchPlace
from vferry.plan.relay_chain import ChainAssessment, ChainWishes, Service

GUEST, INWARD, OUTWARD = "52:54:00:aa:00:0b", "52:54:00:aa:00:21", "52:54:00:aa:00:22"
ALL = (GUEST, INWARD, OUTWARD)
PORTS = tuple(
    RelayPort(guest=guest, mac=mac, socket="/run/s", switch=SwitchPlace(bridge="relay0", vlan=vlan))
    for guest, mac, vlan in (("web", GUEST, 7), ("fw", INWARD, 1001), ("fw", OUTWARD, 1002))
)
RELAY = Relay(
    operation="relay-1",
    state=RelayState.ENABLED,
    kind=RelayKind.SWITCHED,
    uplinks=("pf0",),
    cores=(7,),
    bridges=(RelayBridge(name="relay0", uplinks=(RelayUplink(name="relay0-up0", address="0000:01:10.0"),)),),
    ports=PORTS,
)
WISHES = ChainWishes(name="web", served=(GUEST,), services=(Service(inward=INWARD, outward=OUTWARD),), vlans=(901,))
ON_AIR = replace(HOST, migration=MigrationEndpoint(address="127.0.0.1", ports=(49200, 49215)), relay=RELAY)


class ChainHost:
    """Its ports, in the VLANs that they were asked for; `fails` names what is refused, by MAC and VLAN."""

    def __init__(self, agent: FakeAgent) -> None:
        self.agent = agent
        self.fails: set[tuple[str, int]] = set()
        self.order: list[tuple[str, int]] = []
        agent.handlers.answers[api.JoinRelay] = self.join

    @property
    def ports(self) -> dict[str, RelayPort]:
        relay = self.agent.handlers.inventory.relay
        return {port.mac: port for port in relay.ports} if relay else {}

    @property
    def vlans(self) -> list[int]:
        return [place.vlan for mac in ALL if (place := self.ports[mac].switch)]

    def join(self, asked: api.JoinRelay) -> Struct:
        place = asked.port.switch
        assert place is not None
        self.order.append((asked.port.mac, place.vlan))
        assert {claim.guest for claim in self.agent.claims.all()} == {"web", "fw"}
        if self.order[-1] in self.fails:
            raise Problem("port-refused", "It does not go", "Do something", exit=Exit.REFUSED)
        ports = tuple((self.ports | {asked.port.mac: asked.port}).values())
        self.agent.handlers.inventory = replace(ON_AIR, relay=replace(RELAY, ports=ports))
        return api.Done()


@pytest.fixture
async def host(tmp_path: Path, state: State) -> AsyncIterator[ChainHost]:
    async with fake_agent(tmp_path / "host1", ON_AIR) as agent:
        await add_host("host1", agent.uri, state=state)
        yield ChainHost(agent)


async def plan(state: State) -> ChainAssessment:
    found = await relay_chain.assess(state, "host1", WISHES)
    assert found.steps, found.errors
    return found


async def make(state: State) -> None:
    await relay_chain.change(state, "host1", await plan(state), lambda _: None)


async def test_there_and_back(host: ChainHost, state: State) -> None:
    told: list[str] = []
    await relay_chain.change(state, "host1", await plan(state), told.append)
    assert host.vlans == [901, 901, 7]
    assert told[0] == f"{GUEST} of web to bridge relay0, VLAN 901 of chain web"
    assert host.agent.claims.all() == ()
    await make(state)
    assert host.vlans == [901, 901, 7]
    await relay_chain.change(state, "host1", await relay_chain.assess_none(state, "host1", "web"), told.append)
    assert tuple(host.ports.values()) == PORTS
    assert host.agent.claims.all() == ()


@pytest.mark.parametrize("failing", [(GUEST, 901), (INWARD, 901), (OUTWARD, 7)])
async def test_what_fails_is_undone(host: ChainHost, state: State, failing: tuple[str, int]) -> None:
    host.fails.add(failing)
    with pytest.raises(Problem, match="All that was done for the chain is undone") as caught:
        await make(state)
    assert (caught.value.code, caught.value.exit) == ("port-refused", Exit.UNDONE)
    assert tuple(host.ports.values()) == PORTS
    assert host.agent.claims.all() == ()


async def test_what_cannot_be_undone_is_said_and_gone_on_with(host: ChainHost, state: State) -> None:
    """The guest is held then: it is in the chain's VLAN, and nobody else."""
    host.fails |= {(OUTWARD, 7), (GUEST, 7)}
    with pytest.raises(Problem, match="Nor could all be undone") as caught:
        await make(state)
    assert caught.value.exit == Exit.OPERATOR
    assert host.vlans == [901, 1001, 1002]
    host.fails.clear()
    await make(state)
    assert host.vlans == [901, 901, 7]
    assert host.agent.claims.all() == ()


async def test_a_guest_that_migrates_meanwhile_is_left_alone(host: ChainHost, state: State) -> None:
    found = await plan(state)
    host.agent.claims.claim(Session(operation="op-1"), "fw")
    with pytest.raises(Problem) as caught:
        await relay_chain.change(state, "host1", found, lambda _: None)
    assert (caught.value.code, host.order) == ("guest-claimed", [])
    assert [claim.operation for claim in host.agent.claims.all()] == ["op-1"]


async def test_ports_that_are_others_by_now_are_left_alone(host: ChainHost, state: State) -> None:
    found = await plan(state)
    ports = (replace(PORTS[0], switch=SwitchPlace(bridge="relay0", vlan=8)), *PORTS[1:])
    host.agent.handlers.inventory = replace(ON_AIR, relay=replace(RELAY, ports=ports))
    with pytest.raises(Problem) as caught:
        await relay_chain.change(state, "host1", found, lambda _: None)
    assert (caught.value.code, caught.value.exit, host.order) == ("relay-changed", Exit.REFUSED, [])
    assert host.agent.claims.all() == ()


async def test_a_controller_that_died_is_gone_on_from(host: ChainHost, state: State) -> None:
    for guest in ("web", "fw"):
        host.agent.claims.claim(Session(operation=relay_chain.operation_of(guest)), guest, slot=False)
    await make(state)
    assert host.vlans == [901, 901, 7]
    assert host.agent.claims.all() == ()


# --- the command -----------------------------------------------------------------------------------------

WORDS = ("--of", GUEST.upper(), "--through", f"{INWARD}, {OUTWARD}", "--vlans", "901")


async def run(*arguments: str) -> Result:
    """In a thread: it has an event loop of its own, as in its own process."""
    return await asyncio.to_thread(CliRunner().invoke, cli.command, ("chain", *arguments), catch_exceptions=False)


async def test_the_command(host: ChainHost, state: State) -> None:
    dry = await run("host1", "web", *WORDS, "--dry-run")
    assert (dry.exit_code, host.order) == (0, [])
    assert f"{OUTWARD} of fw to bridge relay0, VLAN 7 of chain web" in dry.output
    made = await run("host1", "web", *WORDS)
    assert (made.exit_code, made.output.splitlines()[-1]) == (0, "The chain web on host1 is made")
    other = await run("host1", "other", *WORDS)
    assert other.exit_code == Exit.REFUSED
    assert "vferry relay chain HOST NAME --none" in other.output
    back = await run("host1", "web", "--none")
    assert (back.exit_code, back.output.splitlines()[-1]) == (0, "The chain web on host1 is taken back")
    assert tuple(host.ports.values()) == PORTS
    again = await run("host1", "web", "--none")
    assert (again.exit_code, "Nothing on host1 is in a chain web" in again.output) == (0, True)


@pytest.mark.parametrize(
    "words",
    [
        ("web",),
        ("web", *WORDS, "--none"),
        ("web", *WORDS[:4]),
        ("web", *WORDS[2:]),
        ("web", "--of", GUEST, "--vlans", "901"),
        ("-", *WORDS),
        ("a b", *WORDS),
        ("web", "--of", "web", *WORDS[2:]),
        ("web", *WORDS[:2], "--through", INWARD, "--vlans", "901"),
        ("web", *WORDS[:2], "--through", f"{INWARD},{OUTWARD},{GUEST}", "--vlans", "901"),
        ("web", *WORDS[:4], "--vlans", "0"),
        ("web", *WORDS[:4], "--vlans", "4095"),
        ("web", *WORDS[:4], "--vlans", "901,"),
        ("web", *WORDS[:4], "--vlans", "-1"),
    ],
    ids=" ".join,
)
async def test_what_makes_no_sense_is_refused(host: ChainHost, state: State, words: tuple[str, ...]) -> None:
    assert (await run("host1", *words)).exit_code == 2
    assert host.order == []
