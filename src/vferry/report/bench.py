"""The comparison of `vferry bench network`: what several runs of each case have in common."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from msgspec import convert
from rich.table import Table
from rich.text import Text

from vferry.model.report import Tcp
from vferry.report import words

# The cases of the comparison with what they mean; others are shown as they are named.
CASES = {
    "virtio": "(a) virtio",
    "switch": "(b) switch",
    "detach": "(c) detach",
    "failover": "(d) failover",
    "macvtap": "(e) macvtap",
    "relay": "(f) relay",
}
METRICS = ("lost", "late", "longest_gap_ms", "tcp_stall_ms", "pause_ms", "total_s")
# Shown only where it was asked for.
WISHED = "tcp_stall_ms"
LABELS = {
    "lost": "probes lost",
    "late": "probes late",
    "longest_gap_ms": "longest gap",
    "tcp_stall_ms": "TCP stall",
    "pause_ms": "pause",
    "total_s": "total",
}
Figures = dict[str, Any]


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the runs have in common; `runs` are reports as dicts, each with its `case` added.

    Only completed runs count; what a run did not measure is left out, and `n` says how many values there are.
    Returns::

        cases:  {case: {metric: {median, min, max, n}}}       null where nothing was measured
        phases: {case: {phase: {lost: {median, min, max, n}, longest_gap_ms: {...}}}}
        ratios: {metric: the median of the second case by the one of the first, null if that is 0 or not measured}
        runs:   {case: {all, completed}}
        tcp:    {case: {watched, survived}}                   runs with a TCP connection
    """
    names = _order(run["case"] for run in runs)
    completed = {name: [run for run in runs if run["case"] == name and _whole(run)] for name in names}
    cases = {
        name: {metric: _figures(_value(run, metric) for run in of) for metric in METRICS}
        for name, of in completed.items()
    }
    return {
        "cases": cases,
        "phases": {name: _phases(of) for name, of in completed.items()},
        "ratios": {metric: _ratio(cases, metric) for metric in METRICS},
        "runs": {
            name: {"all": sum(run["case"] == name for run in runs), "completed": len(of)}
            for name, of in completed.items()
        },
        "tcp": {name: _connections(of) for name, of in completed.items()},
    }


def render(result: dict[str, Any]) -> Table:
    """A table of what `summary` returned: a line a metric, a column a case, and how the first two compare."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("median (least … most)")
    for name in result["cases"]:
        ran = result["runs"][name]
        runs = f"{ran['completed']} runs" + (f" of {ran['all']}" if ran["all"] != ran["completed"] else "")
        table.add_column(f"{label(name)}\n{runs}", justify="right")
    compared = [label(name).partition(" ")[0] for name in [*result["cases"]][:2]]
    if len(compared) > 1:
        table.add_column(" : ".join(reversed(compared)), justify="right")
    for metric in shown(result):
        cells = [spread(metric, case[metric]) for case in result["cases"].values()]
        ratio = [_times(result["ratios"][metric])] if len(compared) > 1 else []
        table.add_row(LABELS[metric], *map(Text, cells), *ratio)
        if metric == WISHED:
            survivals = [f"{of['survived']} of {of['watched']}" for of in result["tcp"].values()]
            table.add_row(Text("  connections that survived", style="dim"), *map(Text, survivals))
    for phase in losing_phases(result):
        cells = [
            spread("lost", result["phases"][name].get(phase, {}).get("lost", _figures([]))) for name in result["cases"]
        ]
        table.add_row(Text(f"  lost in {phase}", style="dim"), *map(Text, cells))
    return table


def shown(result: dict[str, Any]) -> list[str]:
    """The metrics to show of what `summary` returned."""
    watched = any(case["watched"] for case in result["tcp"].values())
    return [metric for metric in METRICS if metric != WISHED or watched]


def label(case: str) -> str:
    """How a case is called."""
    return CASES.get(case, words.clean(case))


def values(runs: list[dict[str, Any]], case: str, metric: str) -> list[float]:
    """What the completed runs of a case measured."""
    found = (_value(run, metric) for run in runs if run["case"] == case and _whole(run))
    return [value for value in found if value is not None]


def losing_phases(result: dict[str, Any]) -> list[str]:
    """The phases in which any case lost something, in their order."""
    phases = dict.fromkeys(phase for case in result["phases"].values() for phase in case)
    known = [str(phase) for phase in words.COLOURS]
    ordered = [phase for phase in known if phase in phases] + [phase for phase in phases if phase not in known]
    return [
        phase
        for phase in ordered
        if any((case.get(phase, {}).get("lost", {}).get("max") or 0) > 0 for case in result["phases"].values())
    ]


def spread(metric: str, figures: Figures) -> str:
    """Median with least and most, in the metric's unit."""
    if figures["median"] is None:
        return words.NOT_MEASURED
    middle, least, most = (word(metric, figures[key]) for key in ("median", "min", "max"))
    return middle if least == most else f"{middle} ({least} … {most})"


def word(metric: str, value: float) -> str:
    """A value in the metric's unit."""
    if metric == "total_s":
        return words.seconds(value)
    if metric.endswith("_ms"):
        return words.milliseconds(value)
    return f"{value:,.10g}"


def _times(ratio: float | None) -> str:
    return "undefined" if ratio is None else f"{ratio:.2f}"


def _order(names: Iterable[str]) -> list[str]:
    """Each case once: the known ones in their order, then others by name."""
    found = set(names)
    return [*(name for name in CASES if name in found), *sorted(found - set(CASES))]


def _whole(run: dict[str, Any]) -> bool:
    return bool(run.get("status") == "completed")


def _value(run: dict[str, Any], metric: str) -> float | None:
    if metric in ("lost", "late", "longest_gap_ms"):
        return (run.get("network") or {}).get(metric)
    if metric == "tcp_stall_ms":
        return _tcp(run).get("stall_ms")
    return run.get(metric)


def _tcp(run: dict[str, Any]) -> dict[str, Any]:
    """What became of a run's TCP connection; empty where there was none."""
    return (run.get("network") or {}).get("tcp") or {}


def _connections(runs: Sequence[dict[str, Any]]) -> dict[str, int]:
    found = [_tcp(run) for run in runs if _tcp(run)]
    return {"watched": len(found), "survived": sum(convert(tcp, Tcp).survived for tcp in found)}


def _figures(values: Iterable[float | None]) -> Figures:
    known = [value for value in values if value is not None]
    if not known:
        return {"median": None, "min": None, "max": None, "n": 0}
    return {"median": median(known), "min": min(known), "max": max(known), "n": len(known)}


def _phases(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Figures]]:
    parts = [(run.get("network") or {}).get("phases") or {} for run in runs]
    names = dict.fromkeys(phase for part in parts for phase in part)
    return {
        phase: {
            metric: _figures(part[phase].get(metric) for part in parts if phase in part)
            for metric in ("lost", "longest_gap_ms")
        }
        for phase in names
    }


def _ratio(cases: dict[str, dict[str, Figures]], metric: str) -> float | None:
    base, ours, *_ = [*(case[metric]["median"] for case in cases.values()), None, None]
    return None if not base or ours is None else ours / base
