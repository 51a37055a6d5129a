"""A relay made and taken back through a true server, with claims as they are, over a host in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec import Struct
from msgspec.structs import replace

from fakes.relay import HOST, on_ground
from vferry.cli import relay as cli
from vferry.controller import relay
from vferry.controller.hosts import add_host
from vferry.controller.state import State
from vferry.host import api
from vferry.host.api import Operation, Session
from vferry.host.service_fake import FakeAgent, fake_agent
from vferry.model.host import Inventory, MigrationEndpoint
from vferry.model.problem import Exit, Problem
from vferry.model.relay import PortCounters, Relay, RelayCpu, RelayGateway, RelayState, RelayView
from vferry.plan.relay import RelayPlan
from vferry.plan.relay_gateway import GatewayWishes

ON_AIR = replace(HOST, migration=MigrationEndpoint(address="127.0.0.1", ports=(49200, 49215)))
UNDONE: dict[type[Operation[Any]], Callable[[Any], bool]] = {
    api.KeepRelay: lambda _: False,
    api.ForgetRelay: lambda _: True,
    api.SetHugePages: lambda asked: asked.instead_of is not None,
    api.BindVf: lambda asked: asked.driver != "vfio-pci",
    api.SetVf: lambda asked: asked.settings.trust is False,
    api.SetSwitch: lambda asked: None in asked.settings.values(),
    api.SetRelayBridge: lambda asked: not asked.present,
    api.SetRelayGateway: lambda asked: not asked.present,
}
"""Which operations there are, and how each is told from what takes it back."""


class RelayHost:
    """What is done on the host and not taken back; `fails` and `sticks` name what cannot be done, or taken back."""

    def __init__(self, agent: FakeAgent) -> None:
        self.agent = agent
        self.done: list[str] = []
        self.order: list[str] = []
        self.fails: set[str] = set()
        self.sticks: set[str] = set()
        self._handle = agent.handlers.handle
        agent.handlers.handle = self.handle  # type: ignore[method-assign]
        agent.handlers.answers |= dict.fromkeys(UNDONE, self.answer)
        agent.handlers.answers[api.ReadRelay] = lambda _: RelayView(relay=self.relay)

    @property
    def inventory(self) -> Inventory:
        return self.agent.handlers.inventory

    @property
    def relay(self) -> Relay | None:
        return self.inventory.relay

    def check_untouched(self) -> None:
        assert (self.done, self.relay, self.agent.claims.all()) == ([], None, ())

    async def handle(self, operation: Operation[Any], session: Session | None) -> Struct:
        """With whom asks, who may keep and forget only a relay of their own."""
        holder = self.relay.operation if self.relay else None
        if isinstance(operation, api.KeepRelay) and session and holder not in (None, session.operation):
            raise Problem("relay-anothers", f"The relay is that of operation {holder}", "Look", exit=Exit.REFUSED)
        if isinstance(operation, api.ForgetRelay) and session and holder != session.operation:
            return api.Done(changed=False)
        return await self._handle(operation, session)

    def answer(self, asked: Operation[Any]) -> Struct:
        name = type(asked).__name__
        back = UNDONE[type(asked)](asked)
        self.order.append(f"-{name}" if back else name)
        if name in (self.sticks if back else self.fails):
            raise Problem("refused", f"{name} does not go", "Do something", exit=Exit.REFUSED)
        match asked:
            case api.KeepRelay(relay=made):
                self.agent.handlers.inventory = replace(self.inventory, relay=made)
            case api.ForgetRelay():
                self.agent.handlers.inventory = replace(self.inventory, relay=None)
            case _:
                self._count(name, back=back)
        return api.Done()

    def _count(self, name: str, *, back: bool) -> None:
        if not back and name not in self.done:
            self.done.append(name)
        elif back and name in self.done:
            self.done.remove(name)


@pytest.fixture
async def host(tmp_path: Path, state: State) -> AsyncIterator[RelayHost]:
    async with fake_agent(tmp_path / "host1", ON_AIR) as agent:
        await add_host("host1", agent.uri, state=state)
        yield RelayHost(agent)


async def plan(state: State, *, switched: bool = True) -> RelayPlan:
    found = await relay.assess(state, "host1", ("pf0",), switched=switched)
    assert found.plan is not None, found.errors
    return found.plan


async def enable(state: State, *, switched: bool = True) -> None:
    await relay.enable(state, "host1", await plan(state, switched=switched), lambda _: None)


ALL = ["SetHugePages", "BindVf", "SetVf", "SetSwitch", "SetRelayBridge"]


async def test_there_and_back(host: RelayHost, state: State) -> None:
    await enable(state)
    assert host.done == ALL
    assert host.relay is not None
    assert host.relay.state is RelayState.ENABLED
    (claim,) = host.agent.claims.all()
    assert (claim.operation, claim.vfs, claim.slot) == (host.relay.operation, ("0000:01:10.0",), False)
    told: list[str] = []
    found = await relay.disable(state, "host1", told.append)
    assert found.plan is not None
    assert len(told) == len(found.plan.steps)
    host.check_untouched()
    assert host.order[-6:] == ["-SetRelayBridge", "-SetSwitch", "-SetVf", "-BindVf", "-SetHugePages", "-ForgetRelay"]
    assert (await relay.disable(state, "host1", told.append)).plan is None


async def test_a_direct_one_claims_no_vf_yet(host: RelayHost, state: State) -> None:
    await enable(state, switched=False)
    assert host.done == ["SetHugePages", "SetSwitch"]
    assert [claim.vfs for claim in host.agent.claims.all()] == [()]


@pytest.mark.parametrize("name", ALL)
async def test_what_fails_is_undone(host: RelayHost, state: State, name: str) -> None:
    host.fails.add(name)
    with pytest.raises(Problem, match=f"{name} does not go. All that was done for the relay is undone") as caught:
        await enable(state)
    assert (caught.value.code, caught.value.exit) == ("refused", Exit.UNDONE)
    host.check_untouched()
    begun = host.order[1 : host.order.index(name) + 1]
    assert host.order[host.order.index(name) + 1 :] == [*(f"-{each}" for each in reversed(begun)), "-ForgetRelay"]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("stuck", ALL)
async def test_what_cannot_be_undone_is_said_and_may_be_taken_back_later(
    host: RelayHost, state: State, name: str, stuck: str
) -> None:
    if ALL.index(stuck) > ALL.index(name):
        return
    host.fails.add(name)
    host.sticks.add(stuck)
    with pytest.raises(Problem, match="Nor could all be undone") as caught:
        await enable(state)
    assert caught.value.exit == Exit.OPERATOR
    assert "vferry relay disable host1" in caught.value.remedy
    assert host.relay is not None
    assert host.relay.state is RelayState.ENABLING
    assert len(host.agent.claims.all()) == 1
    host.sticks.clear()
    await relay.disable(state, "host1", lambda _: None)
    host.check_untouched()


async def test_a_controller_that_died_is_gone_on_from(host: RelayHost, state: State) -> None:
    half = await plan(state)
    first = Session(operation=half.relay.operation)
    host.agent.claims.claim(first, vfs=half.relay.addresses, slot=False)
    for step in half.steps[:3]:
        for operation in step.apply:
            host.answer(operation)
    again = await plan(state)
    assert again.relay.operation == half.relay.operation
    await relay.enable(state, "host1", again, lambda _: None)
    assert host.done == ALL
    (claim,) = host.agent.claims.all()
    assert claim.epoch == 2
    with pytest.raises(Problem, match="Another controller has taken"):
        host.agent.claims.check(first)


@pytest.mark.parametrize("name", ALL)
async def test_a_relay_that_is_there_is_not_taken_away_by_a_repair(host: RelayHost, state: State, name: str) -> None:
    await enable(state)
    host.order.clear()
    host.fails.add(name)
    with pytest.raises(Problem, match="is left as it is, in part") as caught:
        await enable(state)
    assert caught.value.exit == Exit.OPERATOR
    assert "once more: vferry relay enable host1 --uplink pf0 --switched; or" in caught.value.remedy
    assert not [each for each in host.order if each.startswith("-")]
    assert host.relay is not None
    host.fails.clear()
    await enable(state)
    assert host.relay.state is RelayState.ENABLED


async def test_a_repair_of_a_direct_relay_is_asked_for_again_as_one(host: RelayHost, state: State) -> None:
    await enable(state, switched=False)
    host.fails.add("SetSwitch")
    with pytest.raises(Problem, match="is left as it is, in part") as caught:
        await enable(state, switched=False)
    assert "once more: vferry relay enable host1 --uplink pf0; or" in caught.value.remedy


@pytest.mark.parametrize("name", [*ALL, "ForgetRelay"])
async def test_a_way_back_that_stops_may_be_gone_again(host: RelayHost, state: State, name: str) -> None:
    await enable(state)
    host.sticks.add(name)
    with pytest.raises(Problem, match="taken back in part") as caught:
        await relay.disable(state, "host1", lambda _: None)
    assert caught.value.exit == Exit.OPERATOR
    assert host.relay is not None
    assert host.relay.state is RelayState.DISABLING
    assert (await relay.assess(state, "host1", ("pf0",), switched=True)).plan is None
    host.sticks.clear()
    await relay.disable(state, "host1", lambda _: None)
    host.check_untouched()


async def test_a_claim_of_one_that_never_began_is_given_back(host: RelayHost, state: State) -> None:
    host.agent.claims.claim(Session(operation="relay-0"), vfs=("0000:01:10.0",), slot=False)
    host.agent.claims.claim(Session(operation="op-1"), "guest1")
    await relay.disable(state, "host1", lambda _: None)
    assert [claim.operation for claim in host.agent.claims.all()] == ["op-1"]


async def test_a_vf_that_somebody_takes_meanwhile(host: RelayHost, state: State) -> None:
    made = await plan(state)
    host.agent.claims.claim(Session(operation="op-1"), vfs=made.relay.addresses)
    with pytest.raises(Problem) as caught:
        await relay.enable(state, "host1", made, lambda _: None)
    assert (caught.value.code, host.order) == ("vf-claimed", [])


async def test_two_at_a_time_are_one(host: RelayHost, state: State) -> None:
    """Both have looked before either began; a direct relay claims no VF that could tell them apart."""
    first, second = await plan(state, switched=False), await plan(state, switched=False)
    await relay.enable(state, "host1", first, lambda _: None)
    made = host.relay
    with pytest.raises(Problem, match="is that of operation") as caught:
        await relay.enable(state, "host1", second, lambda _: None)
    assert (caught.value.code, caught.value.exit) == ("relay-anothers", Exit.UNDONE)
    assert host.relay == made
    assert [claim.operation for claim in host.agent.claims.all()] == [first.relay.operation]


async def test_one_that_is_taken_over_is_not_undone(host: RelayHost, state: State) -> None:
    made = await plan(state)

    def taken_over(_asked: Any) -> Struct:
        host.agent.claims.fence(Session(operation=made.relay.operation, epoch=0))
        raise AssertionError

    host.agent.handlers.answers[api.SetSwitch] = taken_over
    with pytest.raises(Problem) as caught:
        await relay.enable(state, "host1", made, lambda _: None)
    assert caught.value.code == "stale-controller"
    assert not [each for each in host.order if each.startswith("-")]


# --- a VLAN's gateway ------------------------------------------------------------------------------------

GATEWAY = RelayGateway(bridge="relay0", vlan=7, remote="192.0.2.9", key=7)
WISHES = GatewayWishes(vlan=7, remote=IPv4Address(GATEWAY.remote))


async def lead(state: State) -> None:
    found = await relay.assess_gateway(state, "host1", WISHES)
    assert found.plan is not None, found.errors
    await relay.change(state, "host1", found.plan, lambda _: None)


async def test_a_gateway_there_and_back(host: RelayHost, state: State) -> None:
    await enable(state)
    (claim,), before = host.agent.claims.all(), host.relay
    await lead(state)
    assert host.relay is not None
    assert host.relay.gateways == (GATEWAY,)
    assert host.done == [*ALL, "SetRelayGateway"]
    (held,) = host.agent.claims.all()
    assert (held.operation, held.vfs) == (claim.operation, claim.vfs)
    found = await relay.assess_no_gateway(state, "host1", 7, None)
    assert found.plan is not None
    await relay.change(state, "host1", found.plan, lambda _: None)
    assert (host.relay, host.done) == (before, ALL)


@pytest.mark.parametrize("name", ["KeepRelay", "SetRelayGateway"])
async def test_a_gateway_that_fails_is_undone_and_the_relay_stays(host: RelayHost, state: State, name: str) -> None:
    await enable(state)
    before = host.relay
    host.fails.add(name)
    host.order.clear()
    with pytest.raises(Problem, match="does not go") as caught:
        await lead(state)
    assert caught.value.code == "refused"
    assert host.done == ALL
    assert len(host.agent.claims.all()) == 1
    if name == "SetRelayGateway":
        assert caught.value.exit == Exit.UNDONE
        assert host.relay == before
        assert host.order == ["KeepRelay", "SetRelayGateway", "-SetRelayGateway", "KeepRelay"]


async def test_a_gateway_that_cannot_be_undone_is_known_and_taken_back_later(host: RelayHost, state: State) -> None:
    await enable(state)
    host.fails.add("SetRelayGateway")
    host.sticks.add("SetRelayGateway")
    with pytest.raises(Problem, match="Nor could all be undone") as caught:
        await lead(state)
    assert caught.value.exit == Exit.OPERATOR
    assert host.relay is not None
    assert host.relay.gateways == (GATEWAY,)
    host.sticks.clear()
    await relay.disable(state, "host1", lambda _: None)
    host.check_untouched()


async def test_a_gateway_for_a_relay_that_is_another_one_by_now_is_refused(host: RelayHost, state: State) -> None:
    await enable(state)
    found = await relay.assess_gateway(state, "host1", WISHES)
    assert found.plan is not None
    await lead(state)
    host.order.clear()
    with pytest.raises(Problem) as caught:
        await relay.change(state, "host1", found.plan, lambda _: None)
    assert (caught.value.code, caught.value.exit, host.order) == ("relay-changed", Exit.REFUSED, [])


async def test_the_command_for_a_gateway(host: RelayHost, state: State) -> None:
    refused = await run("gateway", "host1", "--vlan", "7", "--to", "192.0.2.9")
    assert refused.exit_code == Exit.REFUSED
    assert "vferry relay enable host1" in refused.output
    await enable(state)
    host.order.clear()
    dry = await run("gateway", "host1", "--vlan", "7", "--to", "192.0.2.9", "--dry-run")
    assert "VLAN 7 of relay0 to 192.0.2.9 by GRE, key 7" in dry.output
    assert (dry.exit_code, host.order) == (0, [])
    made = await run("gateway", "host1", "--vlan", "7", "--to", "192.0.2.9")
    assert (made.exit_code, made.output.splitlines()[-1]) == (0, "VLAN 7 on host1 goes to 192.0.2.9")
    shown = " ".join((await run("show", "host1")).output.split())
    assert "Gateways VLAN 7 of relay0 to 192.0.2.9 by GRE, key 7" in shown
    labelled = await run("gateway", "host1", "--vlan", "7", "--to", "192.0.2.9", "--label", "100007", "--dry-run")
    assert "VLAN 7 of relay0 to 192.0.2.9 by MPLS in GRE, label 100007" in labelled.output
    words = ("gateway", "host1", "--vlan", "7", "--to", "192.0.2.9", "--address", "10.0.0.254", "--dry-run")
    assert "by GRE, key 7, IPv4 by 10.0.0.254" in (await run(*words)).output
    gone = await run("gateway", "host1", "--vlan", "7", "--none")
    assert (gone.exit_code, gone.output.splitlines()[-1]) == (0, "VLAN 7 on host1 goes to no gateway any more")
    again = await run("gateway", "host1", "--vlan", "7", "--none")
    assert (again.exit_code, "VLAN 7 of relay0 on host1 goes to no gateway" in again.output) == (0, True)


@pytest.mark.parametrize(
    "words",
    [
        ("--vlan", "7"),
        ("--vlan", "7", "--to", "192.0.2.9", "--none"),
        ("--vlan", "7", "--key", "7", "--none"),
        ("--vlan", "0", "--to", "192.0.2.9"),
        ("--vlan", "4095", "--to", "192.0.2.9"),
        ("--vlan", "7", "--to", "192.0.2.9", "--key", "4294967296"),
        ("--vlan", "7", "--to", "192.0.2.9", "--label", "15"),
        ("--vlan", "7", "--to", "192.0.2.9", "--label", "1048576"),
        ("--vlan", "7", "--to", "192.0.2.9", "--label", "16", "--key", "7"),
        ("--vlan", "7", "--label", "16", "--none"),
        ("--vlan", "7", "--address", "10.0.0.254", "--none"),
        ("--vlan", "7", "--to", "192.0.2.9", "--address", "fd00::1"),
        *(("--vlan", "7", "--to", each) for each in ("a.example", "::1", "224.0.0.1", "127.0.0.1", "0.0.0.0")),
        ("--vlan", "7", "--to", "255.255.255.255"),
    ],
    ids=" ".join,
)
async def test_a_gateway_that_makes_no_sense_is_refused(host: RelayHost, words: tuple[str, ...]) -> None:
    assert (await run("gateway", "host1", *words)).exit_code == 2
    assert host.order == []


# --- the commands ----------------------------------------------------------------------------------------


async def run(*arguments: str) -> Result:
    """A command in a thread: it has an event loop of its own, as in its own process."""
    return await asyncio.to_thread(CliRunner().invoke, cli.command, arguments, catch_exceptions=False)


async def test_the_commands(host: RelayHost, state: State) -> None:
    dry = await run("enable", "host1", "--uplink", "pf0", "--switched", "--dry-run")
    assert dry.exit_code == 0
    assert "VF 0 of pf0 (0000:01:10.0) to vfio-pci" in dry.output
    assert host.order == []

    made = await run("enable", "host1", "--uplink", "pf0", "--switched")
    assert made.exit_code == 0
    assert "host1 has a switched relay on pf0, which forwards on CPU 7" in made.output
    assert "1024 MiB more of huge pages on NUMA node 0" in made.output

    ports = (
        PortCounters(name="relay0-up0", bridge="relay0", type="dpdk", up=True, statistics={"rx_packets": 1234567}),
        PortCounters(name="relay0-up1", bridge="relay0", type="dpdk", error="no such device"),
        PortCounters(name="vfg1", bridge="relay0", guest="guest1", mac="52:54:00:aa:00:01"),
    )
    cpus = (RelayCpu(number=7, packets=42, idle_cycles=3, busy_cycles=1),)
    view = RelayView(relay=host.relay, dpdk_started=True, ports=ports, cpus=cpus, connections=9)
    host.agent.handlers.answers[api.ReadRelay] = lambda _: view
    shown = " ".join((await run("show", "host1")).output.split())
    for words in (
        "State enabled",
        "CPUs 7",
        "DPDK runs",
        "relay0-up0 relay0 - up 1,234,567",
        "vfg1 relay0 guest1 - 0",
        "no such device",
        "7 0 25% 42",
    ):
        assert words in shown
    assert 'vferry_relay_connections{host="host1"} 9.0' in (await run("show", "host1", "--prometheus")).output
    assert (await run("show", "host1", "--prometheus", "--json")).exit_code == Exit.USAGE
    assert json.loads((await run("show", "host1", "--json")).output)["ports"][0]["statistics"]["rx_packets"] == 1234567

    other = await run("enable", "host1", "--uplink", "pf1")
    assert other.exit_code == Exit.REFUSED
    assert "host1 has a switched relay on pf0 already" in other.output

    order = list(host.order)
    stays = await run("disable", "host1")
    assert (stays.exit_code, host.order) == (Exit.REFUSED, order)
    assert "ovs-vsctl del-port relay0-up1" in stays.output

    host.agent.handlers.answers[api.ReadRelay] = lambda _: RelayView(relay=host.relay, ports=ports[:1])
    gone = await run("disable", "host1")
    assert gone.exit_code == 0
    assert "host1 has no relay any more" in gone.output
    assert "until it is started anew" in gone.output
    assert "host1 has no relay" in (await run("disable", "host1")).output
    host.agent.handlers.answers[api.ReadRelay] = lambda _: RelayView()
    assert "vferry relay enable host1" in (await run("show", "host1")).output


async def test_what_is_missing_is_printed(host: RelayHost, state: State) -> None:
    host.agent.handlers.inventory = on_ground(ON_AIR, vfio=False, library=False)
    refused = await run("enable", "host1", "--uplink", "pf0, pf9")
    assert refused.exit_code == Exit.REFUSED
    for words in ("has no PF pf9", "modprobe vfio-pci", "python3-openvswitch"):
        assert words in refused.output
    assert host.order == []


class Watched:
    """A host's relay that is looked at every two seconds, until all of `looks` are over: counters, views, problems."""

    def __init__(
        self, host: RelayHost, monkeypatch: pytest.MonkeyPatch, looks: list[int | RelayView | Problem]
    ) -> None:
        self._host = host
        self._left = iter([*enumerate(looks), None])
        self._look = next(self._left)
        host.agent.handlers.answers[api.ReadRelay] = self._answer
        monkeypatch.setattr(cli, "pause", self._sleep)
        monkeypatch.setattr(cli, "clock", lambda: 2.0 * self._at)

    @property
    def _at(self) -> int:
        return self._look[0] if self._look else 0

    def _answer(self, _asked: Any) -> RelayView:
        assert self._look is not None
        match self._look[1]:
            case Problem() as problem:
                raise problem
            case RelayView() as view:
                return view
            case int(packets):
                port = PortCounters(name="up", bridge="relay0", statistics={"rx_packets": packets, "rx_dropped": 3})
                return RelayView(relay=self._host.relay, ports=(port,), read_at_s=2.0 * self._at, silence="it sleeps")
        raise AssertionError

    async def _sleep(self, _seconds: float) -> None:
        self._look = next(self._left)
        if self._look is None:
            raise KeyboardInterrupt


async def test_watching_shows_rates(host: RelayHost, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Open vSwitch writes down every five seconds, though it is looked at every two."""
    await enable(state)
    Watched(host, monkeypatch, [1000, 1000, 1000, 6000, 6000])
    watched = await run("show", "host1", "--watch")
    assert "6,000 (1,000/s)" in watched.output
    assert "rx_dropped 3" in watched.output
    assert "it sleeps" in watched.output
    Watched(host, monkeypatch, [1, 2])
    lines = (await run("show", "host1", "--watch", "--json")).output.splitlines()
    assert [json.loads(line)["read_at_s"] for line in lines if line.startswith("{")] == [0.0, 2.0]


async def test_watching_where_there_is_no_relay_says_so(
    host: RelayHost, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    Watched(host, monkeypatch, [RelayView()])
    assert "host1 has no relay: vferry relay enable host1" in (await run("show", "host1", "--watch")).output
    await enable(state)
    Watched(host, monkeypatch, [RelayView(), 1000])
    assert "Relay of host1" in (await run("show", "host1", "--watch")).output


GONE = Problem("host-unreachable", "Host host1 does not answer", "Look at it", exit=Exit.REFUSED)


async def test_watching_goes_on_when_the_agent_is_back(
    host: RelayHost, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enable(state)
    Watched(host, monkeypatch, [1000, GONE])
    missed = await run("show", "host1", "--watch")
    assert (missed.exit_code, "1,000" in missed.output) == (0, True)
    assert "Host host1 does not answer. It is asked again." in missed.output
    Watched(host, monkeypatch, [1000, GONE, 2000])
    back = await run("show", "host1", "--watch")
    assert ("2,000 (200/s)" in back.output, "does not answer" in back.output) == (True, False)
    Watched(host, monkeypatch, [1000, GONE, 2000])
    lines = await run("show", "host1", "--watch", "--json")
    assert lines.stderr == "Host host1 does not answer. It is asked again.\n"
    assert len([line for line in lines.stdout.splitlines() if line.startswith("{")]) == 2


@pytest.mark.parametrize("looks", [[GONE, 1000], [1000, *[GONE] * 150, 1000]], ids=["at once", "for five minutes"])
async def test_watching_ends_where_nothing_answers(
    host: RelayHost, state: State, monkeypatch: pytest.MonkeyPatch, looks: list[int | RelayView | Problem]
) -> None:
    await enable(state)
    Watched(host, monkeypatch, looks)
    with pytest.raises(Problem, match="does not answer"):
        await run("show", "host1", "--watch")


@pytest.mark.parametrize("name", ["enable", "disable", "show"])
def test_every_help_has_an_example(name: str) -> None:
    assert f"Example: vferry relay {name}" in CliRunner().invoke(cli.command, [name, "--help"]).output
