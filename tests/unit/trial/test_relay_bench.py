"""`vferry bench relay`, with a path that is none: what is asked of it, counted and kept."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vferry.cli import bench_relay
from vferry.model.problem import Problem
from vferry.trial import relay_bench
from vferry.trial.bouncer import Bouncer
from vferry.trial.ends import End, Ends
from vferry.trial.namespace import Namespace
from vferry.trial.relay_bench import RelayCase, RelaySettings, environment, measure, rate
from vferry.trial.relay_paths import WAYS, Place, Way
from vferry.trial.results import Results


class Clock:
    """Stands still but for sleeping."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


CLOCK = Clock()


class Packets(Bouncer):
    """Passes so many packets a second for each that is on its way."""

    def __init__(self, each: float = 1000.0) -> None:
        self.each, self.flying, self.count, self.at = each, 0, 0.0, 0.0
        self.settled = False

    def settle(self) -> None:
        self.settled = True

    def send(self, size: int, burst: int, bursts: int) -> None:
        self.flying, self.at = 2 * burst * bursts, CLOCK.monotonic()

    def stop(self) -> None:
        self.flying = 0

    def received(self) -> int:
        now = CLOCK.monotonic()
        self.count, self.at = self.count + self.each * self.flying * (now - self.at), now
        return int(self.count)

    def cpu_s(self) -> float:
        return 0.0


class Nowhere(Namespace):
    """A namespace that is none."""

    def __init__(self) -> None:
        pass

    def __enter__(self) -> "Nowhere":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def inside(self, argv: Sequence[str] = ()) -> list[str]:
        return list(argv)


TRIPS = {"rtt_us_median": 20.0, "rtt_us_p99": 50.0}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_bench, "time", CLOCK)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths that are laid in no time; those that were."""
    laid: list[str] = []

    def way(name: str) -> Way:
        @contextmanager
        def lay(place: Place) -> Iterator[Ends]:
            assert place.folder.is_dir()
            laid.append(name)
            yield End(place.folder / "0"), End(place.folder / "1")

        return Way(lambda: "", lay)

    for name in WAYS:
        monkeypatch.setitem(WAYS, name, way(name))
    monkeypatch.setattr(relay_bench, "huge_pages", lambda _: nullcontext())
    monkeypatch.setattr(relay_bench, "Namespace", Nowhere)
    monkeypatch.setattr(relay_bench, "Bouncer", lambda *_: nullcontext(Packets()))
    monkeypatch.setattr(relay_bench, "round_trips", lambda _cpus, _ends, _inside, sizes, _s: [TRIPS] * len(sizes))
    return laid


def test_figures_of_a_path() -> None:
    found = rate(Packets(), 64, 0.2)
    assert found["pps"] == pytest.approx(512_000, abs=2)
    assert found["cores"] >= 0


def test_a_path_that_nothing_comes_back_from_is_a_problem() -> None:
    with pytest.raises(Problem, match="No packet comes back"):
        rate(Packets(0.0), 64, 0.01)


def test_each_path_is_laid_once_a_run_in_turn_and_only_for_what_is_missing(tmp_path: Path, quick: list[str]) -> None:
    path = tmp_path / "relay.json"
    settings = RelaySettings(["direct", "bridge"], [64, 1500], 2, 0.01)
    begun: list[str] = []
    measure(settings, Results(path, RelayCase.of), begun.append)
    assert quick == ["direct", "bridge"] * 2
    assert begun[0] == "run 1 of 2: direct"
    measure(settings, Results(path, RelayCase.of), begun.append)
    assert len(quick) == 4
    measure(settings._replace(runs=3, paths=["bridge"]), Results(path, RelayCase.of), begun.append)
    assert quick[4:] == ["bridge"]
    rows = Results(path, RelayCase.of).of(lambda _: environment(0.01))
    assert [(row["path"], row["size"]) for row in rows[:4]] == [
        ("direct", 64),
        ("direct", 1500),
        ("bridge", 64),
        ("bridge", 1500),
    ]


def test_one_cpu_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    with pytest.raises(Problem, match="two CPUs"):
        measure(RelaySettings(["direct"], [64], 1, 1.0), Results(tmp_path / "r", RelayCase.of), print)


def run(*words: str) -> Any:
    return CliRunner().invoke(bench_relay.command, words)


def test_what_cannot_be_measured_here_is_left_out_and_said(
    tmp_path: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_relay, "missing", lambda name: "no such device" if name == "bridge" else "")
    results = str(tmp_path / "relay.json")
    done = run("--runs", "1", "--seconds", "0.5", "--sizes", "64", "--paths", "direct,bridge", "--results", results)
    assert done.exit_code == 0, done.output
    assert "left out: bridge: no such device" in done.output
    assert quick == ["direct"]
    assert "direct" in done.output


def test_where_nothing_can_be_measured_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_relay, "missing", lambda _: "there is no dpdk-testpmd: apt install dpdk-dev")
    done = run("--results", str(tmp_path / "relay.json"))
    assert isinstance(done.exception, Problem)
    assert "apt install dpdk-dev" in str(done.exception)


@pytest.mark.parametrize(
    "words", [("--sizes", "63"), ("--sizes", "1501"), ("--sizes", "many"), ("--paths", "direct,other")]
)
def test_nonsense_is_refused(words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_it_has_laid_is_taken_down_when_a_signal_ends_it(
    tmp_path: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    taken: list[str] = []

    @contextmanager
    def lay(_: Place) -> Iterator[Ends]:
        try:
            os.kill(os.getpid(), number)
            yield End(tmp_path), End(tmp_path)
        finally:
            taken.append("direct")

    monkeypatch.setattr(bench_relay, "missing", lambda _: "")
    monkeypatch.setitem(WAYS, "direct", Way(lambda: "", lay))
    before = signal.signal(number, lambda *_: None)  # so that one that is not caught ends no test
    done = run("--runs", "1", "--paths", "direct", "--results", str(tmp_path / "relay.json"))
    signal.signal(number, before)
    assert done.exit_code == 128 + number
    assert taken == ["direct"]
