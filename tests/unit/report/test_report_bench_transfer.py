"""The comparison of ways to move memory."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vferry.report import bench_success, bench_transfer
from vferry.report.bench_success_picture import write_success
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


def test_modes_are_compared_with_others_of_the_same_setting() -> None:
    rows = [
        row("plain", rate=15_000, status="not converged", total_s=None, guest_speed=0.98),
        row("multifd+zstd", rate=15_000, total_s=10.0, cpu_s=5.0, guest_speed=0.9),
        row("xbzrle", rate=15_000, total_s=20.0),
        row("gateway", rate=15_000, total_s=6.0, cpu_s=6.0, guest_speed=0.98),
        row("gateway+none", rate=15_000, total_s=1.0),
        row("gateway", rate=15_000, used=700),
    ]
    group, alone = bench_transfer.summary(rows)
    gateway = group["modes"]["gateway"]
    assert {name: gateway[name] for name in bench_transfer.RATIOS} == {
        "to_fastest": pytest.approx(0.6),
        "to_zstd_cpu": pytest.approx(1.2),
        "to_plain_guest": pytest.approx(1.0),
    }
    assert group["modes"]["plain"]["to_fastest"] is None
    assert not any(alone["modes"]["gateway"][name] for name in bench_transfer.RATIOS)
    assert "1,024 MiB, 700 used" in bench_transfer.title(alone)


CURVE = [
    row("plain", link=50, total_s=70.0),
    row("plain", link=50, status="not converged", total_s=None, deadline_s=60.0),
    row("plain", link=1000, total_s=60.0),
    row("plain", link=1000, status="not converged", total_s=None, deadline_s=30.0),
    row("gateway", link=50, total_s=59.0),
    row("gateway", link=50, status="failed", total_s=None),
    row("gateway", link=0, total_s=1.0),
    row("multifd+zstd", link=50, status="not offered"),
    row("gateway", link=50, tls=True),
]


def test_a_share_counts_rows_that_tell() -> None:
    plain, tls = bench_success.success(CURVE, 60)
    assert plain["modes"] == {
        "plain": [{"link": 50, "ended": 0, "of": 2}, {"link": 1000, "ended": 1, "of": 1}],
        "gateway": [{"link": 50, "ended": 1, "of": 2}, {"link": 0, "ended": 1, "of": 1}],
    }
    assert bench_success.links(plain) == [50, 1000, 0]
    assert (tls["tls"], tls["modes"]) == (True, {"gateway": [{"link": 50, "ended": 1, "of": 1}]})
    assert bench_success.success([CURVE[3]], 60) == []


def test_the_curve_is_told_and_drawn(tmp_path: Path) -> None:
    groups = bench_success.success(CURVE, 60)
    console = Console(file=io.StringIO(), width=160, highlight=False)
    console.print(bench_success.render(groups))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "ended within 60.0 s · 1,024 MiB" in text
    assert "1 of 2" in text
    write_success(groups, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
