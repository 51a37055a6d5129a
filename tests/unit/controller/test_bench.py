"""The results of a benchmark, and what it measures after the compared runs."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec import structs

from fakes import samples
from fakes.clock import run_virtually
from fakes.journal import MemoryJournal, Witness
from fakes.matrix import plan_of
from vferry.cli import bench as command
from vferry.controller import bench
from vferry.controller.bench import Case, Results, measure
from vferry.controller.configuration import ControllerConfiguration, MigrationSettings, ProbeSettings
from vferry.controller.latency import BASELINE, STEPS
from vferry.controller.migrate import Request
from vferry.host.api import Host
from vferry.migration.conductor import Conductor
from vferry.migration.stepper import Ending
from vferry.model.compression import Codec
from vferry.model.problem import Exit, Problem
from vferry.plan.plan import GuestSide, NetworkMode, Plan

VIRTIO = Case(name="virtio", guest="guest2", mode=NetworkMode.VIRTIO)
SWITCH = Case(name="switch", guest="guest1", mode=NetworkMode.SWITCH, probe_tcp=7)
FIGURES = {"median": 1.0, "max": 2.0, "n": 3}
LATENCY = {"baseline": {"host": "host1", "agent_ms": FIGURES, "disk_ms": FIGURES, "no_answer": 0}}


class Migrations:
    """In the place of what migrates: notes what was done, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, latency: dict[str, Any] | None = LATENCY) -> None:
        self.done: list[str] = []
        self.ports: list[int | None] = []
        self.latency = latency
        monkeypatch.setattr(bench, "_once", self._once)
        monkeypatch.setattr(bench, "_latency", self._latency)

    async def _once(self, _state: Any, case: Case, _audience: Any) -> dict[str, Any]:
        self.done.append(case.name)
        self.ports.append(case.probe_tcp)
        return {"case": case.name, "status": "completed"}

    async def _latency(self, _state: Any, case: Case, _audience: Any) -> dict[str, Any] | None:
        self.done.append(f"latency of {case.name}")
        return self.latency


def run(cases: tuple[Case, ...], runs: int, results: Results) -> list[str]:
    told: list[str] = []
    state: Any = SimpleNamespace()
    audience: Any = None
    asyncio.run(measure(state, cases, runs, results, audience, told.append))
    return told


def test_latency_is_measured_once_after_the_compared_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, path = Migrations(monkeypatch), tmp_path / "network.json"
    run((VIRTIO, SWITCH), 2, Results(path))
    assert made.done == ["virtio", "switch", "virtio", "switch", "latency of switch"]
    kept = json.loads(path.read_text())
    assert [one["case"] for one in kept["runs"]] == ["virtio", "switch", "virtio", "switch"]
    assert kept["latency"] == LATENCY
    # One that was not cut short has nothing to do; one more run each does not measure latency again.
    run((VIRTIO, SWITCH), 3, Results(path))
    assert made.done[5:] == ["virtio", "switch"]
    assert json.loads(path.read_text())["latency"] == LATENCY


def test_without_mode_switch_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, results = Migrations(monkeypatch), Results(tmp_path / "network.json")
    run((VIRTIO,), 1, results)
    assert (made.done, results.latency(SWITCH)) == (["virtio"], None)


def test_without_an_agent_there_is_none_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Migrations(monkeypatch, None)
    results = Results(tmp_path / "network.json")
    assert "guest1 has no agent" in run((SWITCH,), 1, results)[-1]
    assert results.latency(SWITCH) is None


def test_runs_that_do_not_say_how_they_were_made_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, path = Migrations(monkeypatch), tmp_path / "network.json"
    path.write_text(json.dumps({"runs": [{"case": "switch", "status": "completed"}], "latency": LATENCY}))
    results = Results(path)
    run((SWITCH,), 1, results)
    assert made.done == ["switch", "latency of switch"]
    assert [each.get("setting") for each in json.loads(path.read_text())["runs"]] == [None, SWITCH.setting]
    assert results.of((SWITCH,)) == results.runs[1:]


@pytest.mark.parametrize(
    "other",
    [
        {"guest": "web1"},
        {"probe_tcp": None},
        {"configuration": ControllerConfiguration(probe=ProbeSettings(rate_hz=200))},
        {"configuration": ControllerConfiguration(migration=MigrationSettings(codec=Codec.ZSTD))},
        {"code": "abc1234+"},
    ],
)
def test_only_runs_of_the_same_setting_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    made, path = Migrations(monkeypatch), tmp_path / "network.json"
    unlike = structs.replace(SWITCH, **other)
    run((unlike,), 1, Results(path))
    run((SWITCH,), 1, Results(path))
    run((SWITCH,), 1, Results(path))
    assert made.done == ["switch", "latency of switch"] * 2
    assert [each["setting"] for each in Results(path).of((SWITCH,))] == [SWITCH.setting]


def test_what_the_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Migrations(monkeypatch)
    monkeypatch.setenv("VFERRY_STATE", str(tmp_path / "state"))
    path = tmp_path / "network.json"
    arguments = ["network", "--runs", "1", "--modes", "switch", "--results", str(path)]
    table = CliRunner().invoke(command.command, arguments, catch_exceptions=False).stdout
    assert table.index("(b) switch") < table.index("latency of the guest") < table.index("baseline on host1")
    printed = json.loads(CliRunner().invoke(command.command, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert set(printed) == {"runs", "summary", "latency"}
    assert printed["latency"] == LATENCY
    assert printed["summary"]["runs"] == {"switch": {"all": 1, "completed": 1}}


def test_a_connection_is_watched_in_every_mode_if_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Migrations(monkeypatch)
    monkeypatch.setenv("VFERRY_STATE", str(tmp_path / "state"))
    arguments = ["network", "--modes", "virtio,switch", "--results", str(tmp_path / "network.json")]
    CliRunner().invoke(command.command, [*arguments, "--runs", "1"], catch_exceptions=False)
    CliRunner().invoke(command.command, [*arguments, "--runs", "2", "--probe-tcp", "7"], catch_exceptions=False)
    assert made.ports == [None, None, 7, 7, 7, 7], "those without are not taken for runs with a connection"


def test_what_is_left_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Migrations(monkeypatch)
    monkeypatch.setenv("VFERRY_STATE", str(tmp_path / "state"))
    arguments = ["network", "--runs", "1", "--modes", "virtio", "--json", "--results", str(tmp_path / "network.json")]
    assert "left out" not in CliRunner().invoke(command.command, arguments, catch_exceptions=False).stderr
    done = CliRunner().invoke(command.command, [*arguments, "--probe-tcp", "7"], catch_exceptions=False)
    assert "left out: 1 in" in done.stderr
    printed = json.loads(done.stdout)
    assert [each["setting"]["probe_tcp"] for each in printed["runs"]] == [7]
    assert printed["summary"]["runs"]["virtio"]["all"] == 1


@pytest.mark.parametrize("name", ["network", "transfer"])
def test_results_do_not_go_where_the_repository_has_its_own(name: str) -> None:
    (default,) = (each.default for each in command.command.commands[name].params if each.name == "results")
    assert default == Path("bench-results") / f"{name}.json"
    root = Path(__file__).parents[3]
    assert "/bench-results/" in (root / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize(
    ("words", "guests"),
    [
        ((), ["guest2", "guest1", "guest1", "failover1", "macvtap1"]),
        (("--guest", "web1"), ["guest2", "web1", "web1", "failover1", "macvtap1"]),
        (("--guest", "virtio=a", "--guest", "detach=b"), ["a", "guest1", "b", "failover1", "macvtap1"]),
        (("--guest", "macvtap=c=d"), None),
        (("--guest", "taxi=a"), None),
    ],
)
def test_each_mode_has_its_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], guests: list[str] | None
) -> None:
    monkeypatch.setenv("VFERRY_STATE", str(tmp_path / "state"))
    seen: list[str] = []

    async def noting(_state: Any, cases: tuple[Case, ...], *_rest: Any) -> None:
        seen.extend(case.guest for case in cases)

    monkeypatch.setattr(command, "measure", noting)
    monkeypatch.setattr("vferry.report.bench_picture.write_bench", lambda *_: None)
    modes = "virtio,switch,detach,failover,macvtap"
    done = CliRunner().invoke(
        command.command, ["network", "--modes", modes, "--results", str(tmp_path / "r.json"), "--json", *words]
    )
    assert (done.exit_code == 2) == (guests is None), done.output
    assert seen == (guests or [])


# --- the run that measures latency -----------------------------------------------------------------------


class Lab:
    """Two hosts in memory in the place of registered ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, agent: bool = True) -> None:
        self.case = samples.Case(NetworkMode.SWITCH, GuestSide.ADDRESSES)
        self.fleet, self.plan = samples.make_fleet(self.case), plan_of(self.case)
        self.agent = agent
        self.requests: list[Request] = []
        self.ending: Ending | None = None
        hosts = [SimpleNamespace(name=name) for name in (samples.SOURCE, samples.DESTINATION)]
        monkeypatch.setattr(bench, "list_hosts", lambda _state: hosts)
        monkeypatch.setattr(bench, "open_host", self._open)
        monkeypatch.setattr(bench, "prepare", self._prepare)
        monkeypatch.setattr(bench, "begun", lambda _state, _prepared, plan: nullcontext(plan))
        monkeypatch.setattr(bench, "carry_out", self._carry_out)

    @asynccontextmanager
    async def _open(self, name: str, state: Any) -> AsyncIterator[Host]:
        assert state is not None
        yield self.fleet.host(name, samples.OPERATION)

    async def _prepare(self, _state: Any, request: Request) -> Any:
        self.requests.append(request)
        if request.destination == samples.SOURCE:
            raise Problem("same-host", "it is there")
        facts = SimpleNamespace(guest_network=object() if self.agent else None)
        return SimpleNamespace(plan=self.plan, survey=SimpleNamespace(facts=facts))

    async def _carry_out(self, _state: Any, plan: Plan, audience: Any) -> Any:
        hosts = {name: self.fleet.host(name, samples.OPERATION) for name in self.fleet.hosts}
        self.ending = await Conductor(plan, hosts, MemoryJournal(), audience).run()
        return SimpleNamespace(status="completed", degraded=None)


def measure_latency() -> dict[str, Any] | None:
    state: Any = SimpleNamespace()
    audience: Any = lambda _plan: Witness()  # noqa: E731
    return run_virtually(bench._latency(state, SWITCH, audience))


def test_the_run_for_latency_is_a_migration_without_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(monkeypatch)
    found = measure_latency()
    assert found is not None
    assert list(found) == [BASELINE, *STEPS]
    assert all(one["agent_ms"]["n"] and one["disk_ms"]["n"] for one in found.values())
    assert [(one.destination, one.measured, one.probe_tcp) for one in lab.requests] == [
        (samples.SOURCE, False, None),
        (samples.DESTINATION, False, None),
    ]
    assert lab.ending is not None
    assert lab.ending.exit is Exit.DONE


def test_a_measured_run_watches_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(monkeypatch)
    state: Any = SimpleNamespace()
    asyncio.run(bench._planned(state, SWITCH))
    assert {(one.measured, one.probe_tcp) for one in lab.requests} == {(True, 7)}


def test_a_guest_without_an_agent_is_not_migrated_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(monkeypatch, agent=False)
    assert measure_latency() is None
    assert lab.ending is None
