"""The second table of `vferry bench network`: how fast the guest's disk and agent answer while NICs come and go."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.table import Table
from rich.text import Text

from vferry.report import words

METRICS = {"agent_ms": "agent", "disk_ms": "disk"}


def figures(values: Sequence[float]) -> dict[str, Any]:
    """Median and greatest of times in ms, null where there are none, and how many there are."""
    if not values:
        return {"median": None, "max": None, "n": 0}
    return {"median": round(median(values), 3), "max": max(values), "n": len(values)}


def render(latency: dict[str, Any]) -> Table:
    """A table of what the results keep: a line a step, the first the baseline; `median (most)` of each metric."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("latency of the guest, one more run")
    for label in METRICS.values():
        table.add_column(f"{label}\nmedian (most)", justify="right")
    table.add_column("slices of 1 s\nwithout an answer", justify="right")
    for step, one in latency.items():
        cells = [Text(_cell(one[metric])) for metric in METRICS]
        table.add_row(Text(words.clean(f"{step} on {one['host']}")), *cells, words.count(one["no_answer"]))
    return table


def _cell(of: dict[str, Any]) -> str:
    if not of["n"]:
        return words.NOT_MEASURED
    return f"{words.milliseconds(of['median'])} ({words.milliseconds(of['max'])})"
