"""The comparison of cases."""

import io
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_sample import bare, sample, tcp
from rich.console import Console

from vferry.report import bench
from vferry.report.bench_picture import write_bench


def run(case: str, lost: int | None, **changes: Any) -> dict[str, Any]:
    """A run as the command hands it over; None: the network was not measured."""
    built: dict[str, Any] = msgspec.to_builtins(sample())
    if lost is None:
        built["network"] = None
    else:
        built["network"]["lost"] = built["network"]["phases"]["switchover"]["lost"] = lost
    return built | {"case": case} | changes


VALUES = st.none() | st.integers(0, 9000)
RUNS = st.lists(st.tuples(st.sampled_from([*bench.CASES, "other"]), VALUES), max_size=15)


@given(RUNS)
def test_medians_lie_between_least_and_most(rows: list[tuple[str, int | None]]) -> None:
    result = bench.summary([run(case, lost) for case, lost in rows])
    assert set(result["cases"]) == {case for case, _ in rows}
    for name, case in result["cases"].items():
        known = [lost for of, lost in rows if of == name and lost is not None]
        figures = case["lost"]
        assert figures["n"] == len(known)
        assert case["pause_ms"]["n"] == result["runs"][name]["completed"] == sum(of == name for of, _ in rows)
        if known:
            assert figures["min"] <= figures["median"] <= figures["max"]
            assert figures["median"] == median(known)
            assert result["phases"][name]["switchover"]["lost"] == figures
        else:
            assert figures == {"median": None, "min": None, "max": None, "n": 0}


@given(RUNS, st.randoms(use_true_random=False))
def test_the_order_of_runs_does_not_matter(rows: list[tuple[str, int | None]], random: Any) -> None:
    runs = [run(case, lost) for case, lost in rows]
    shuffled = list(runs)
    random.shuffle(shuffled)
    assert bench.summary(runs) == bench.summary(shuffled)


@pytest.mark.parametrize(
    ("virtio", "switch", "ratio"),
    [
        ([50, 60, 70], [90], 1.5),
        ([0], [3], None),
        ([None], [3], None),
        ([5], [None], None),
        ([4], [0], 0.0),
        ([], [1], None),
    ],
)
def test_ratios_are_of_medians(virtio: list[int | None], switch: list[int | None], ratio: float | None) -> None:
    runs = [run("virtio", lost) for lost in virtio] + [run("switch", lost) for lost in switch]
    assert bench.summary(runs)["ratios"]["lost"] == ratio


def test_the_first_two_are_compared_whichever_they_are() -> None:
    runs = [run("relay", 90), run("virtio", 60)]
    assert bench.summary(runs)["ratios"]["lost"] == 1.5
    assert "(f) : (a)" in shown(runs)
    assert "1.50" in shown(runs)
    assert bench.summary(runs[:1])["ratios"]["lost"] is None


def test_a_case_alone_is_compared_with_nothing() -> None:
    text = shown([run("switch", 60)])
    assert "(b) switch" in text
    assert text.count("(b)") == 1
    assert "undefined" not in text


def test_only_completed_runs_count() -> None:
    refused = msgspec.to_builtins(bare()) | {"case": "switch"}
    result = bench.summary([run("switch", 9), run("switch", 900, status="undone"), refused])
    assert result["runs"]["switch"] == {"all": 3, "completed": 1}
    assert result["cases"]["switch"]["lost"]["max"] == 9


def test_the_table_has_cases_spreads_and_ratios() -> None:
    runs = [run("switch", lost) for lost in (58, 60, 66)] + [run("virtio", 50), run("detach", None)]
    text = shown(runs)
    lost = next(line for line in text.splitlines() if line.startswith("probes lost"))
    assert lost.split("  ")[0] == "probes lost"
    assert "60 (58 … 66)" in lost
    assert "1.20" in lost
    assert "not measured" in lost
    assert text.index("(a) virtio") < text.index("(b) switch") < text.index("(c) detach")
    assert "lost in switchover" in text


def with_tcp(case: str, stall_ms: float, **changes: Any) -> dict[str, Any]:
    found = run(case, 50)
    found["network"]["tcp"] = msgspec.to_builtins(tcp(stall_ms=stall_ms, **changes))
    return found


def shown(runs: list[dict[str, Any]]) -> str:
    console = Console(file=io.StringIO(), width=150)
    console.print(bench.render(bench.summary(runs)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_connections_have_their_lines_where_any_was_watched() -> None:
    runs = [
        with_tcp("virtio", 800),
        with_tcp("switch", 1200, ended="reset"),
        with_tcp("switch", 1000),
        with_tcp("switch", 1100, echoed=3),
    ]
    result = bench.summary([*runs, run("detach", 3)])
    assert result["cases"]["switch"]["tcp_stall_ms"] == {"median": 1100, "min": 1000, "max": 1200, "n": 3}
    assert result["cases"]["detach"]["tcp_stall_ms"]["median"] is None
    assert result["ratios"]["tcp_stall_ms"] == 1100 / 800
    assert result["tcp"]["switch"] == {"watched": 3, "survived": 1}
    text = shown([*runs, run("detach", 3)])
    (stall,) = [line for line in text.splitlines() if line.startswith("TCP stall")]
    assert "1,100 ms (1,000 ms … 1,200 ms)" in stall
    assert "not measured" in stall
    (survived,) = [line for line in text.splitlines() if "survived" in line]
    assert survived.split()[-9:] == ["1", "of", "1", "1", "of", "3", "0", "of", "0"]


def test_without_connections_nothing_is_said_of_them() -> None:
    assert "TCP" not in shown([run("virtio", 50), run("switch", 60)])


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param([with_tcp("virtio", 700.0), with_tcp("switch", 900.0), run("detach", 7000)], id="connections"),
        pytest.param([run("virtio", 50), run("switch", 55), run("detach", 7000)], id="far apart"),
        pytest.param([run("virtio", 0), run("virtio", None)], id="nothing lost"),
        pytest.param([run("switch", None, status="failed")], id="nothing completed"),
        pytest.param([], id="no runs"),
    ],
)
def test_the_picture_is_written(tmp_path: Path, runs: list[dict[str, Any]]) -> None:
    write_bench(runs, tmp_path / "bench.png")
    data = (tmp_path / "bench.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 15_000
