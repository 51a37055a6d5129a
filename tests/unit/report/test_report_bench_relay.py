"""The comparison of `vferry bench relay`."""

from typing import Any

from rich.console import Console

from vferry.report.bench_relay import render, summary


def row(path: str, pps: int, cores: float = 1.0, size: int = 64) -> dict[str, Any]:
    rate = {"pps": pps, "cores": cores, "pps_per_core": round(pps / cores)}
    return {"path": path, "size": size, **rate, "rtt_us_median": 9.5, "rtt_us_p99": 12.5}


ROWS = [
    row("direct", 900),
    row("bridge", 300, 2.0),
    row("direct", 1200),
    row("bridge", 300),
    row("direct", 10, size=1500),
]


def test_sizes_are_apart_and_a_path_is_compared_with_the_bridge_run_by_run() -> None:
    small, large = summary(ROWS)
    assert (small["size"], large["size"]) == (64, 1500)
    direct = small["paths"]["direct"]
    assert direct["runs"] == 2
    assert direct["pps"] == {"median": 1050, "min": 900, "max": 1200}
    assert direct["to_bridge"] == {"median": 5.0, "min": 4.0, "max": 6.0}
    assert small["paths"]["bridge"]["to_bridge"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert large["paths"]["direct"]["to_bridge"] is None


def test_a_path_with_rules_is_compared_with_the_same_without() -> None:
    rows = [row("switched", 1000), row("switched+rules", 600), row("switched", 1000), row("switched+rules", 500)]
    rows += [row("openvswitch+rules", 100)]
    (small,) = summary(rows)
    assert small["paths"]["switched+rules"]["to_plain"] == {"median": 0.55, "min": 0.5, "max": 0.6}
    assert small["paths"]["switched"]["to_plain"] is None
    assert small["paths"]["openvswitch+rules"]["to_plain"] is None


def test_the_table_has_medians_with_least_and_most() -> None:
    console = Console(width=160, force_terminal=False)
    with console.capture() as capture:
        console.print(render(summary(ROWS)))
    said = capture.get()
    assert "1.1 (0.9 … 1.2)" in said
    assert "5.0 (4.0 … 6.0)" in said
    assert "1,500 bytes" in said


def test_without_rows_nothing_is_said() -> None:
    assert summary([]) == []
