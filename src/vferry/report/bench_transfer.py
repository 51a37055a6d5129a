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
# What a mode's medians are to those of others of the same setting: label, figure.
RATIOS = {
    "to_fastest": ("total : fastest of QEMU's", "total_s"),
    "to_zstd_cpu": ("CPU : multifd+zstd's", "cpu_s"),
    "to_plain_guest": ("guest : plain's", "guest_speed"),
}
SETTING = ("link", "rate", "memory", "tls")
Rows = Sequence[dict[str, Any]]
Figures = dict[str, Any]


def summary(rows: Rows) -> list[Figures]:
    """What the rows have in common, a dict for each setting, in order of appearance; only completed runs count.

    Returns dicts with the setting, `floor_s` (null where the link is not shaped) and `modes`::

        {mode: {runs, completed, differing, ended: {status: number}, total_s: {median, min, max, n}, ...}}

    Beside them a mode has `to_fastest`, its total to that of the fastest mode of QEMU's own; `to_zstd_cpu`, its CPU to
    that of multifd+zstd; `to_plain_guest`, the guest's speed to that under plain, which need not have converged.
    """
    settings = dict.fromkeys(_setting(row) for row in rows)
    return [_group(setting, [row for row in rows if _setting(row) == setting]) for setting in settings]


def render(groups: Sequence[Figures]) -> Group:
    """Two tables a setting: a line a mode, medians with least and most; and what they are to each other."""
    return Group(*(part for group in groups for part in (_table(group), Text(), _compared(group), Text())))


def title(group: Figures) -> str:
    """A setting in words, with its floor."""
    link = f"{group['link']:,} Mbit/s" if group["link"] else "link not shaped"
    rate = f"{group['rate']:,} pages/s" if group["rate"] else "idle"
    floor = f" · floor {words.seconds(group['floor_s'])}" if group["floor_s"] else ""
    tls = " · TLS" if group["tls"] else ""
    used = f", {group['used']:,} used" if group["used"] else ""
    return f"{link} · {rate} · {group['memory']:,} MiB{used}{tls}{floor}"


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
    return (*(row[key] for key in SETTING), row.get("used", 0))


def _group(setting: tuple[Any, ...], rows: Rows) -> Figures:
    names = dict.fromkeys(row["mode"] for row in rows)
    floors = [floor for row in rows if (floor := _floor_s(row))]
    modes = {mode: _mode([row for row in rows if row["mode"] == mode]) for mode in names}
    bases = _bases(rows, modes)
    return {
        **dict(zip((*SETTING, "used"), setting, strict=True)),
        "floor_s": median(floors) if floors else None,
        "modes": {mode: figures | _ratios(figures, bases) for mode, figures in modes.items()},
    }


def _bases(rows: Rows, modes: dict[str, Figures]) -> dict[str, float | None]:
    """What is compared with, by the names of ratios; None where it is not known."""
    totals = [figures["total_s"]["median"] for mode, figures in modes.items() if not mode.startswith("gateway")]
    speeds = [row.get("guest_speed") for row in rows if row["mode"] == "plain"]
    zstd = modes.get("multifd+zstd")
    return {
        "to_fastest": min((total for total in totals if total), default=None),
        "to_zstd_cpu": zstd["cpu_s"]["median"] if zstd else None,
        "to_plain_guest": _figures(speeds)["median"],
    }


def _ratios(figures: Figures, bases: dict[str, float | None]) -> dict[str, float | None]:
    pairs = {name: (figures[metric]["median"], bases[name]) for name, (_, metric) in RATIOS.items()}
    return {name: value / base if value is not None and base else None for name, (value, base) in pairs.items()}


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


def _compared(group: Figures) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("mode", no_wrap=True)
    for label, _ in RATIOS.values():
        table.add_column(label, justify="right")
    for mode, figures in group["modes"].items():
        cells = ["–" if figures[name] is None else f"{figures[name]:.2f}" for name in RATIOS]
        table.add_row(Text(words.clean(mode)), *map(Text, cells))
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
