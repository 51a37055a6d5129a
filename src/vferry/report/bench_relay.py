"""The comparison of `vferry bench relay`: what the runs of each path have in common, for each size of packets."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Group
from rich.table import Table

Rows = Sequence[dict[str, Any]]
Figures = dict[str, Any]

METRICS = {
    "pps": ("kpps", 1000),
    "cores": ("CPUs busy", 1),
    "pps_per_core": ("kpps a CPU", 1000),
    "rtt_us": ("round trip, µs", 1),
}
"""What a row measures: label, and how much of it is one in the table."""
BASE = "bridge"
"""What the others are compared with, where it was measured."""


def summary(rows: Rows) -> list[Figures]:
    """A dict for each size, in order: ``{size, paths: {path: {runs, pps: {median, min, max}, ..., to_bridge}}}``.

    `to_bridge` is packets a second and CPU to those of the kernel's bridge, run by run: `{median, min, max}`.
    """
    return [
        {"size": size, "paths": _paths([row for row in rows if row["size"] == size])}
        for size in sorted({row["size"] for row in rows})
    ]


def render(groups: Sequence[Figures]) -> Group:
    """A table a size: a line a path, medians with least and most."""
    return Group(*(_table(group) for group in groups))


def _paths(rows: Rows) -> dict[str, Figures]:
    of = {path: [row for row in rows if row["path"] == path] for path in dict.fromkeys(row["path"] for row in rows)}
    return {path: _figures(mine, of.get(BASE, [])) for path, mine in of.items()}


def _figures(rows: Rows, base: Rows) -> Figures:
    found: Figures = {"runs": len(rows)} | {name: _spread([row[name] for row in rows]) for name in METRICS}
    ratios = [a["pps_per_core"] / b["pps_per_core"] for a, b in zip(rows, base, strict=False) if b["pps_per_core"]]
    return found | {f"to_{BASE}": _spread([round(ratio, 2) for ratio in ratios]) if ratios else None}


def _spread(values: Sequence[float]) -> Figures:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _table(group: Figures) -> Table:
    table = Table(title=f"{group['size']:,} bytes", title_justify="left", show_edge=False)
    for name in ("path", "runs", *(label for label, _ in METRICS.values()), f": {BASE}'s"):
        table.add_column(name, justify="left" if name == "path" else "right")
    for path, figures in group["paths"].items():
        ratio = figures[f"to_{BASE}"]
        cells = [_words(figures[name], unit) for name, (_, unit) in METRICS.items()]
        table.add_row(path, str(figures["runs"]), *cells, _words(ratio, 1) if ratio else "–")
    return table


def _words(spread: Figures, unit: float) -> str:
    """The median, with least and most where they differ."""
    middle, least, most = (_number(spread[name] / unit) for name in ("median", "min", "max"))
    return middle if least == most else f"{middle} ({least} … {most})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
