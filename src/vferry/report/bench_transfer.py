"""The comparison of `vferry bench transfer`: what the runs of each mode have in common, for each link and rate."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from vferry.report import words

# What a row measures: label and how it is worded.
METRICS = {
    "total_s": "total",
    "floor_ratio": ": floor",
    "pause_ms": "QEMU's pause",
    "blackout_ms": "nobody runs",
    "wire_bytes": "on the wire",
    "cpu_s": "CPU",
    "cpu_peak": "busiest second",
    "guest_speed": "guest's speed",
}
SETTING = ("link", "rate", "memory", "tls")
Rows = Sequence[dict[str, Any]]
Figures = dict[str, Any]


def summary(rows: Rows) -> list[Figures]:
    """What the rows have in common, a dict for each setting, in order of appearance; only completed runs count.

    Returns dicts with the setting, `floor_s` (null where the link is not shaped) and `modes`::

        {mode: {runs, completed, differing, ended: {status: number}, total_s: {median, min, max, n}, ...}}
    """
    settings = dict.fromkeys(tuple(row[key] for key in SETTING) for row in rows)
    return [_group(setting, [row for row in rows if _setting(row) == setting]) for setting in settings]


def render(groups: Sequence[Figures]) -> Group:
    """A table a setting: a line a mode, medians with least and most."""
    return Group(*(part for group in groups for part in (_table(group), Text())))


def title(group: Figures) -> str:
    """A setting in words, with its floor."""
    link = f"{group['link']:,} Mbit/s" if group["link"] else "link not shaped"
    rate = f"{group['rate']:,} pages/s" if group["rate"] else "idle"
    floor = f" · floor {words.seconds(group['floor_s'])}" if group["floor_s"] else ""
    tls = " · TLS" if group["tls"] else ""
    return f"{link} · {rate} · {group['memory']:,} MiB{tls}{floor}"


def word(metric: str, value: float) -> str:
    """A value in the metric's unit."""
    if metric in ("total_s", "cpu_s"):
        return words.seconds(value)
    if metric.endswith("_ms"):
        return words.milliseconds(value)
    if metric == "wire_bytes":
        return words.size(value)
    return f"{value:.2f}"


def _setting(row: Figures) -> tuple[Any, ...]:
    return tuple(row[key] for key in SETTING)


def _group(setting: tuple[Any, ...], rows: Rows) -> Figures:
    modes = dict.fromkeys(row["mode"] for row in rows)
    floors = [floor for row in rows if (floor := _floor_s(row))]
    return {
        **dict(zip(SETTING, setting, strict=True)),
        "floor_s": median(floors) if floors else None,
        "modes": {mode: _mode([row for row in rows if row["mode"] == mode]) for mode in modes},
    }


def _mode(rows: Rows) -> Figures:
    completed = [row for row in rows if row["status"] == "completed"]
    ended = dict.fromkeys(row["status"] for row in rows)
    return {
        "runs": len(rows),
        "completed": len(completed),
        "differing": sum(row["differing_pages"] > 0 for row in completed),
        "ended": {status: sum(row["status"] == status for row in rows) for status in ended},
        **{metric: _figures([_value(row, metric) for row in completed]) for metric in METRICS},
    }


def _value(row: Figures, metric: str) -> float | None:
    if metric != "floor_ratio":
        return row.get(metric)
    floor = _floor_s(row)
    return row["total_s"] / floor if floor else None


def _floor_s(row: Figures) -> float | None:
    """Seconds that the compressed memory takes over the link."""
    return row["floor_bytes"] * 8 / (row["link"] * 1e6) if row["link"] else None


def _figures(values: Sequence[float | None]) -> Figures:
    known = [value for value in values if value is not None]
    if not known:
        return {"median": None, "min": None, "max": None, "n": 0}
    return {"median": median(known), "min": min(known), "max": max(known), "n": len(known)}


def _table(group: Figures) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    table.title = title(group)
    table.add_column("mode", no_wrap=True)
    table.add_column("ended", justify="right", no_wrap=True)
    for label in (*METRICS.values(), "memory"):
        table.add_column(label, justify="right")
    for mode, figures in group["modes"].items():
        cells = [_cell(metric, figures[metric]) for metric in METRICS]
        table.add_row(Text(words.clean(mode)), Text(_ended(figures)), *map(Text, cells), _memory(figures))
    return table


def _cell(metric: str, figures: Figures) -> str:
    if figures["median"] is None:
        return "–"
    middle, least, most = (word(metric, figures[key]) for key in ("median", "min", "max"))
    return middle if least == most else f"{middle} ({least} … {most})"


def _ended(figures: Figures) -> str:
    if figures["completed"] == figures["runs"]:
        return words.count(figures["runs"])
    return ", ".join(f"{number} {words.clean(status)}" for status, number in figures["ended"].items())


def _memory(figures: Figures) -> Text:
    if figures["differing"]:
        return Text(f"{figures['differing']} DIFFER", style="bold red")
    return Text("equal" if figures["completed"] else "–")
