"""A guest whose agent answers nonsense, or hangs, from there to the exit code: refused before anything is changed."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fake_libvirt import FakeAgents, FakeDomain, FakeError, FakeLibvirt
from msgspec import structs
from test_guest_agent import Agent, b64
from xml_samples import domain

from fakes import facts as f
from fakes.samples import GUEST, MAC
from vferry.cli import migrate
from vferry.controller import survey
from vferry.controller.hosts import HostRecord
from vferry.host.api import (
    AskDriver,
    CheckFit,
    DriverAbilities,
    Operation,
    ReadDefinition,
    ReadGuestNetwork,
    TakeInventory,
)
from vferry.host.guest_agent import run_in_guest
from vferry.host.guest_agent_network import SCRIPT, read_network
from vferry.host.hypervisor import Hypervisor
from vferry.model.guest import Nic
from vferry.model.problem import Exit, Problem
from vferry.plan.facts import Facts


def unresponsive(_command: dict[str, Any]) -> Any:
    raise FakeError(FakeLibvirt.VIR_ERR_AGENT_UNRESPONSIVE, "Guest agent is not responding")


BAD: dict[str, Callable[[], Any]] = {
    "nonsense": lambda: lambda _command: "{{",
    "nested": lambda: Agent(exitcode=0, out=b64(b"== links\n== json\n" + b"[" * 60_000 + b"\n== end")),
    "hanging": lambda: Agent(1_000_000),
    "unresponsive": lambda: unresponsive,
}

SAYS = {
    "nonsense": "gave an answer that makes no sense",
    "nested": "says of its network makes no sense",
    "hanging": "has not ended within",
    "unresponsive": "Guest agent is not responding",
}


class World:
    """The two hosts of some facts, the first with a guest whose agent is a bad one. Nothing may be changed on them."""

    def __init__(self, facts: Facts, agent: str) -> None:
        self.facts = facts
        self.patience_s = 0.05 if agent == "hanging" else 30.0
        self.inventories = {"host1": structs.replace(facts.source, guests=(facts.guest,)), "host2": facts.destination}
        machine = FakeDomain(live=domain(), persistent=domain())
        machine.agent = BAD[agent]()
        self.hypervisor = Hypervisor(library=FakeLibvirt(machine), agent_library=FakeAgents())

    @asynccontextmanager
    async def open(self, name: str, **_: Any) -> AsyncIterator[Any]:
        yield OneHost(self, name)


class OneHost:
    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name

    async def call(self, operation: Operation[Any], *, timeout_s: float = 30.0) -> Any:
        match operation:
            case TakeInventory():
                return self.world.inventories[self.name]
            case ReadDefinition():
                return self.world.facts.definition
            case CheckFit():
                return self.world.facts.fit
            case AskDriver():
                return DriverAbilities()
            case ReadGuestNetwork():
                run = run_in_guest(self.world.hypervisor, "guest1", SCRIPT, self.world.patience_s)
                return read_network(GUEST, run)
        raise Problem("not-here", f"nobody is to ask for {operation}")


def with_own_standby(facts: Facts) -> Facts:
    """As the guest of a bond of its own has it."""
    return f.guest(nics=(*facts.guest.nics, Nic(mac=MAC, model="virtio", alias="net0", bridge="br0")))(facts)


def with_pair(facts: Facts) -> Facts:
    vf = structs.replace(facts.guest.nics[0], teaming="transient", teamed_with="ua-standby")
    standby = Nic(mac=MAC, model="virtio", alias="ua-standby", bridge="br0", teaming="persistent")
    return f.guest(nics=(vf, *facts.guest.nics[1:], standby))(facts)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs `vferry migrate` against the world of a guest."""
    monkeypatch.setenv("VFERRY_STATE", str(tmp_path))
    records = [HostRecord(name=name, uri=f"ssh://{name}") for name in ("host1", "host2")]
    monkeypatch.setattr(survey, "list_hosts", lambda _state: records)
    monkeypatch.setattr(survey, "find_host", lambda name, _state: next(one for one in records if one.name == name))

    def ask(change: f.Change, agent: str, *words: str) -> Any:
        monkeypatch.setattr(survey, "open_host", World(change(f.sample()), agent).open)
        return CliRunner().invoke(migrate.command, [GUEST, "host2", *words])

    return ask


@pytest.mark.parametrize("agent", BAD)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda facts: facts, ()),
        (lambda facts: facts, ("--network", "switch")),
        (with_own_standby, ("--network", "detach")),
        (lambda facts: facts, ("--network", "detach", "--temporary-bond")),
    ],
    ids=["auto", "switch", "detach with a bond", "temporary bond"],
)
def test_a_mode_that_needs_to_tell_the_guest_is_refused(
    ask: Any, tmp_path: Path, change: f.Change, words: tuple[str, ...], agent: str
) -> None:
    done = ask(change, agent, *words)
    assert done.exit_code == Exit.REFUSED, done.output
    assert "refused, nothing was changed" in done.output
    assert SAYS[agent] in done.output
    assert not list(tmp_path.glob("operations/*/plan.json"))


@pytest.mark.parametrize("agent", BAD)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_pair, ("--network", "failover")),
        (lambda facts: facts, ("--network", "detach")),
        (with_own_standby, ("--network", "detach", "--accept-interruption")),
    ],
    ids=["failover", "detach of a lone VF", "accepted"],
)
def test_one_that_the_guest_does_by_itself_is_planned_with_a_warning(
    ask: Any, change: f.Change, words: tuple[str, ...], agent: str
) -> None:
    done = ask(change, agent, *words, "--dry-run")
    assert done.exit_code == Exit.DONE, done.output
    assert f"{MAC} is left to the guest's own reaction" in done.output
