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


def shown(rows: list[dict[str, Any]]) -> str:
    console = Console(width=160, force_terminal=False)
    with console.capture() as capture:
        console.print(render(summary(rows)))
    return capture.get()


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
    assert small["paths"]["switched+rules"]["rules_us"] == {"median": 833.335, "min": 666.67, "max": 1000.0}
    assert small["paths"]["switched"]["to_plain"] is None
    assert small["paths"]["switched"]["rules_us"] is None
    assert small["paths"]["openvswitch+rules"]["to_plain"] is None


def test_the_table_has_medians_with_least_and_most() -> None:
    said = shown(ROWS)
    assert "1.05 (0.90 … 1.20)" in said
    assert "5.00 (4.00 … 6.00)" in said
    assert "1,500 bytes" in said


def echoed(path: str, pps: int, rtt_us: float) -> dict[str, Any]:
    return {**row(path, pps), "guest_cores": 0.4, "lost_percent": 0.0, "rtt_us_median": rtt_us}


def test_a_path_to_a_guest_is_compared_with_the_bridge_and_with_its_vf_alone() -> None:
    rows = [echoed("bridge", 1000, 8000.0), echoed("macvtap", 1500, 6000.0), echoed("vf", 2000, 4000.0)]
    (small,) = summary(rows)
    macvtap = small["paths"]["macvtap"]
    assert [macvtap[name]["median"] for name in ("pps_to_bridge", "rtt_to_bridge", "pps_to_vf")] == [1.5, 0.75, 0.75]
    assert macvtap["guest_cores"]["median"] == 0.4
    said = shown(rows)
    assert "kpps : vf's" in said
    assert "lost, %" in said
    assert "without rules" not in said


def test_what_was_not_measured_has_no_column() -> None:
    said = shown(ROWS)
    assert "the guest's" not in said
    assert "kpps : vf's" not in said


def test_without_rows_nothing_is_said() -> None:
    assert summary([]) == []


def test_a_path_alone_is_compared_with_nothing() -> None:
    assert shown([row("direct", 900)]).count("path") == 1
