"""The table of latencies."""

import io

import pytest
from rich.console import Console

from vferry.report.bench_latency import figures, render


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], {"median": None, "max": None, "n": 0}),
        ([2.5], {"median": 2.5, "max": 2.5, "n": 1}),
        ([9.0, 1.0, 2.0, 1.0], {"median": 1.5, "max": 9.0, "n": 4}),
    ],
)
def test_figures(values: list[float], expected: dict[str, float | None]) -> None:
    assert figures(values) == expected


def test_the_table_has_a_line_a_step() -> None:
    latency = {
        "baseline": {"host": "host1", "agent_ms": figures([5.0, 7.0]), "disk_ms": figures([1.0]), "no_answer": 0},
        "plug-vf": {"host": "host2\x1b", "agent_ms": figures([250.0]), "disk_ms": figures([]), "no_answer": 2},
    }
    console = Console(file=io.StringIO(), width=120)
    console.print(render(latency))
    assert isinstance(console.file, io.StringIO)
    *_, baseline, plug = (line.split("  ") for line in console.file.getvalue().splitlines())
    assert [cell.strip() for cell in baseline if cell.strip()] == [
        "baseline on host1",
        "6.0 ms (7.0 ms)",
        "1.0 ms (1.0 ms)",
        "0",
    ]
    assert [cell.strip() for cell in plug if cell.strip()] == [
        "plug-vf on host2\N{REPLACEMENT CHARACTER}",
        "250 ms (250 ms)",
        "not measured",
        "2",
    ]
