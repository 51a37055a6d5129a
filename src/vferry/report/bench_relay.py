"""The comparison of `vferry bench relay` and `vferry lab bench`: what the runs of each path have in common, by size."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from rich.console import Group
from rich.table import Table

Rows = Sequence[dict[str, Any]]
Figures = dict[str, Any]

METRICS = {
    "pps": ("kpps", 1000),
    "cores": ("CPUs busy", 1),
    "guest_cores": ("the guest's", 1),
    "pps_per_core": ("kpps a CPU", 1000),
    "lost_percent": ("lost, %", 1),
    "rtt_us_median": ("round trip, µs", 1),
    "rtt_us_p99": ("99 of 100, µs", 1),
}
"""What a row measures, or may: label, and how much of it is one in the table."""
BASE, VF, RULES = "bridge", "vf", "+rules"
"""What the others are compared with, where it was measured, and what is added to the name of a path with rules."""
NONE = "–"


class Comparison(NamedTuple):
    """What is compared run by run: label, metric, which path a path is compared with, and how; by default the ratio."""

    label: str
    metric: str
    base: Callable[[str], str | None]
    how: Callable[[float, float], float] = lambda one, other: round(one / other, 2)


def _added_us(one: float, other: float) -> float:
    """CPU time of a packet more than the other's, in microseconds, of packets that a CPU passes in a second."""
    return round(1e6 / one - 1e6 / other, 2)


COMPARISONS = {
    "to_bridge": Comparison(f"kpps a CPU : {BASE}'s", "pps_per_core", lambda _: BASE),
    "pps_to_bridge": Comparison(f"kpps : {BASE}'s", "pps", lambda _: BASE),
    "rtt_to_bridge": Comparison(f"round trip : {BASE}'s", "rtt_us_median", lambda _: BASE),
    "pps_to_vf": Comparison(f"kpps : {VF}'s", "pps", lambda _: VF),
    "to_plain": Comparison("kpps a CPU : without rules", "pps_per_core", lambda path: _plain(path)),
    "rules_us": Comparison("rules, CPU µs a packet", "pps_per_core", lambda path: _plain(path), _added_us),
}


def summary(rows: Rows) -> list[Figures]:
    """For each size: ``{size, paths: {path: {runs, pps: {median, min, max}, …, to_bridge, …}}}``.

    Of `METRICS`, what its rows have. Each of `COMPARISONS` is `{median, min, max}` of what it is run by run; None where
    the other path was not measured. What rules and a tunnel leave of a path, `to_plain` says, and what they cost,
    `rules_us`.
    """
    return [
        {"size": size, "paths": _paths([row for row in rows if row["size"] == size])}
        for size in sorted({row["size"] for row in rows})
    ]


def render(groups: Sequence[Figures]) -> Group:
    """Two tables a size: a line a path, medians with least and most, and how paths compare, where they do."""
    return Group(*(table for group in groups for table in _tables(group)))


def _paths(rows: Rows) -> dict[str, Figures]:
    of = {path: [row for row in rows if row["path"] == path] for path in dict.fromkeys(row["path"] for row in rows)}
    return {path: _figures(path, of) for path in of}


def _figures(path: str, of: Mapping[str, Rows]) -> Figures:
    rows = of[path]
    spreads = {name: _spread([row[name] for row in rows]) for name in METRICS if name in rows[0]}
    compared = {name: _compare(rows, of.get(each.base(path) or "", []), each) for name, each in COMPARISONS.items()}
    return {"runs": len(rows), **spreads, **compared}


def _plain(path: str) -> str | None:
    """The path that has no rules, of one that has."""
    return path.removesuffix(RULES) if path.endswith(RULES) else None


def _compare(rows: Rows, base: Rows, by: Comparison) -> Figures | None:
    pairs = ((one[by.metric], other[by.metric]) for one, other in zip(rows, base, strict=False))
    found = [by.how(one, other) for one, other in pairs if one and other]
    return _spread(found) if found else None


def _spread(values: Sequence[float]) -> Figures:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _tables(group: Figures) -> list[Table]:
    shown = [name for name in COMPARISONS if any(each[name] for each in group["paths"].values())]
    return [_table(group), _compared(group, shown)] if shown else [_table(group)]


def _table(group: Figures) -> Table:
    shown = {name: METRICS[name] for name in METRICS if any(name in each for each in group["paths"].values())}
    table = _empty(f"{group['size']:,} bytes", "runs", *(label for label, _ in shown.values()))
    for path, figures in group["paths"].items():
        cells = [_words(figures[name], unit) if name in figures else NONE for name, (_, unit) in shown.items()]
        table.add_row(path, str(figures["runs"]), *cells)
    return table


def _compared(group: Figures, shown: Sequence[str]) -> Table:
    table = _empty(None, *(COMPARISONS[name].label for name in shown))
    for path, figures in group["paths"].items():
        table.add_row(path, *(_words(figures[name], 1) if figures[name] else NONE for name in shown))
    return table


def _empty(title: str | None, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", show_edge=False)
    table.add_column("path")
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _words(spread: Figures, unit: float) -> str:
    """The median, with least and most where they differ."""
    middle, least, most = (_number(spread[name] / unit) for name in ("median", "min", "max"))
    return middle if least == most else f"{middle} ({least} … {most})"


def _number(value: float) -> str:
    """With three digits that say something."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
