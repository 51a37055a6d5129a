"""The comparison of cases."""

import io
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_sample import bare, sample
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


@settings(deadline=None)
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


@settings(deadline=None)
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


def test_only_completed_runs_count() -> None:
    refused = msgspec.to_builtins(bare()) | {"case": "switch"}
    result = bench.summary([run("switch", 9), run("switch", 900, status="undone"), refused])
    assert result["runs"]["switch"] == {"all": 3, "completed": 1}
    assert result["cases"]["switch"]["lost"]["max"] == 9


def test_the_table_has_cases_spreads_and_ratios() -> None:
    runs = [run("switch", lost) for lost in (58, 60, 66)] + [run("virtio", 50), run("detach", None)]
    console = Console(file=io.StringIO(), width=150)
    console.print(bench.render(bench.summary(runs)))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    lost = next(line for line in text.splitlines() if line.startswith("probes lost"))
    assert lost.split("  ")[0] == "probes lost"
    assert "60 (58 … 66)" in lost
    assert "1.20" in lost
    assert "not measured" in lost
    assert text.index("(a) virtio") < text.index("(b) switch") < text.index("(c) detach")
    assert "lost in switchover" in text


@pytest.mark.parametrize(
    "runs",
    [
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
