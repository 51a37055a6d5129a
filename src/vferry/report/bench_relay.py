"""The comparison of `vferry bench relay`: what the runs of each path have in common, for each size of packets."""

from collections.abc import Mapping, Sequence
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
    "rtt_us_median": ("round trip, µs", 1),
    "rtt_us_p99": ("99 of 100, µs", 1),
}
"""What a row measures: label, and how much of it is one in the table."""
BASE, RULES = "bridge", "+rules"
"""What the others are compared with, where it was measured, and what is added to the name of a path with rules."""
RATIOS = {"to_bridge": f": {BASE}'s", "to_plain": ": without rules"}


def summary(rows: Rows) -> list[Figures]:
    """For each size: ``{size, paths: {path: {runs, pps: {median, min, max}, …, to_bridge, to_plain}}}``.

    `to_bridge` is packets a second and CPU to those of the kernel's bridge, run by run: `{median, min, max}`.
    `to_plain` is the same of a path with rules to it without: what they leave. None where that was not measured.
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
    return {path: _figures(path, of) for path in of}


def _figures(path: str, of: Mapping[str, Rows]) -> Figures:
    rows, plain = of[path], path.removesuffix(RULES)
    spreads = {name: _spread([row[name] for row in rows]) for name in METRICS}
    to_plain = _ratios(rows, of.get(plain, [])) if plain != path else None
    return {"runs": len(rows), **spreads, "to_bridge": _ratios(rows, of.get(BASE, [])), "to_plain": to_plain}


def _ratios(rows: Rows, base: Rows) -> Figures | None:
    found = [a["pps_per_core"] / b["pps_per_core"] for a, b in zip(rows, base, strict=False) if b["pps_per_core"]]
    return _spread([round(ratio, 2) for ratio in found]) if found else None


def _spread(values: Sequence[float]) -> Figures:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _table(group: Figures) -> Table:
    table = Table(title=f"{group['size']:,} bytes", title_justify="left", show_edge=False)
    for name in ("path", "runs", *(label for label, _ in METRICS.values()), *RATIOS.values()):
        table.add_column(name, justify="left" if name == "path" else "right")
    for path, figures in group["paths"].items():
        cells = [_words(figures[name], unit) for name, (_, unit) in METRICS.items()]
        ratios = [_words(figures[name], 1) if figures[name] else "–" for name in RATIOS]
        table.add_row(path, str(figures["runs"]), *cells, *ratios)
    return table


def _words(spread: Figures, unit: float) -> str:
    """The median, with least and most where they differ."""
    middle, least, most = (_number(spread[name] / unit) for name in ("median", "min", "max"))
    return middle if least == most else f"{middle} ({least} … {most})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
