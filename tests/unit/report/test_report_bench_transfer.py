"""The comparison of ways to move memory."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vferry.report import bench_transfer
from vferry.report.bench_transfer_picture import write_bench


def row(mode: str, **changes: Any) -> dict[str, Any]:
    return {
        "mode": mode,
        "link": 400,
        "rate": 5000,
        "memory": 1024,
        "tls": False,
        "status": "completed",
        "floor_bytes": 500_000_000,
        "total_s": 12.0,
        "pause_ms": 100,
        "blackout_ms": 150.0,
        "wire_bytes": 600 << 20,
        "cpu_s": 20.0,
        "cpu_peak": 1.5,
        "guest_speed": 1.0,
        "differing_pages": 0,
    } | changes


ROWS = [
    row("plain", total_s=25.0),
    row("plain", total_s=26.0),
    row("gateway"),
    row("plain", rate=40_000, status="not converged", total_s=None, blackout_ms=None),
    row("gateway", rate=40_000, differing_pages=3),
    row("multifd+zstd", rate=40_000, status="not offered"),
    row("plain", link=0, rate=0, guest_speed=None, tls=True),
]


def test_only_runs_that_completed_count() -> None:
    busy, busier, unshaped = bench_transfer.summary(ROWS)
    assert (busy["rate"], busy["floor_s"]) == (5000, pytest.approx(10.0))
    assert busy["modes"]["plain"]["total_s"] == {"median": 25.5, "min": 25.0, "max": 26.0, "n": 2}
    assert busy["modes"]["gateway"]["floor_ratio"]["median"] == pytest.approx(1.2)
    assert busier["modes"]["plain"]["ended"] == {"not converged": 1}
    assert busier["modes"]["plain"]["total_s"]["n"] == busier["modes"]["plain"]["completed"] == 0
    assert busier["modes"]["gateway"]["differing"] == 1
    assert unshaped["floor_s"] is None
    assert unshaped["modes"]["plain"]["guest_speed"]["median"] is None


def test_the_table_says_what_ended_and_what_differs() -> None:
    console = Console(file=io.StringIO(), width=160, highlight=False)
    console.print(bench_transfer.render(bench_transfer.summary(ROWS)))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "400 Mbit/s · 5,000 pages/s · 1,024 MiB · floor 10.0 s" in text
    assert "25.5 s (25.0 s … 26.0 s)" in text
    assert "1 not converged" in text
    assert "1 DIFFER" in text
    assert "link not shaped · idle · 1,024 MiB · TLS" in text


def test_the_picture_is_drawn_even_of_nothing_that_completed(tmp_path: Path) -> None:
    for name, rows in (("all.png", ROWS), ("none.png", [row("plain", status="failed")])):
        write_bench(rows, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
