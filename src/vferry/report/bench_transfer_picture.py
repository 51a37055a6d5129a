"""The comparison of `vferry bench transfer` as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vferry.report import bench_transfer
from vferry.report.picture import STYLE

PANELS = {
    "total_s": ("total, s", 1.0),
    "blackout_ms": ("nobody runs, ms", 1.0),
    "wire_bytes": ("on the wire, MB", 1e-6),
    "cpu_s": ("CPU of both sides, s", 1.0),
    "cpu_peak": ("busiest second, cores", 1.0),
    "guest_speed": ("guest's speed : before", 1.0),
}
COLOURS = ("#9aa5b1", "#6f8fbf", "#b07cc6", "#e0a030", "#4aa58a", "#2f6f9f", "#d1495b", "#7a8a99")
WIDTH = 0.84
"""Of all bars of a rate."""
Figures = dict[str, Any]


def write_bench(rows: bench_transfer.Rows, path: Path) -> None:
    """Writes the picture as PNG: a line of panels a link, bars of medians by rate and mode. Raises OSError."""
    groups = bench_transfer.summary(rows)
    links = list(dict.fromkeys(_link(group) for group in groups))
    modes = list(dict.fromkeys(mode for group in groups for mode in group["modes"]))
    with mpl.rc_context(STYLE):
        height = 2.9 * len(links) + 1.3
        figure = Figure(figsize=(19, height))
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(links), len(PANELS), squeeze=False)
        figure.subplots_adjust(
            left=0.045, right=0.99, top=1 - 1.0 / height, bottom=0.35 / height, hspace=0.45, wspace=0.28
        )
        for line, link in zip(panels, links, strict=True):
            of_link = [group for group in groups if _link(group) == link]
            for axes, metric in zip(line, PANELS, strict=True):
                _panel(axes, metric, of_link, modes)
            line[0].set_ylabel(_words(*link), fontweight="bold")
        _heading(figure, modes, height)
        figure.savefig(path, format="png", dpi=110, facecolor="white")


def _link(group: Figures) -> tuple[int, int, int, bool]:
    return group["link"], group["memory"], group["used"], group["tls"]


def _words(link: int, memory: int, used: int, tls: bool) -> str:  # noqa: FBT001
    speed = f"{link:,} Mbit/s" if link else "not shaped"
    return f"{speed}\n{memory:,} MiB" + (f", {used:,} used" if used else "") + (", TLS" if tls else "")


def _heading(figure: Figure, modes: Sequence[str], height: float) -> None:
    figure.text(
        0.045, 1 - 0.3 / height, "Moving a guest's memory", fontsize=16, fontweight="bold", color="#1b2430", va="center"
    )
    note = "medians by the guest's rate of change (pages/s); ×: did not converge, or failed; line: the floor"
    figure.text(0.045, 1 - 0.6 / height, note, fontsize=11, color="#4a545f", va="center")
    handles = [Patch(color=_colour(modes, mode), label=mode) for mode in modes]
    figure.legend(
        handles=handles, loc="upper right", bbox_to_anchor=(0.99, 1 - 0.1 / height), ncols=len(modes), frameon=False
    )


def _panel(axes: Axes, metric: str, groups: Sequence[Figures], modes: Sequence[str]) -> None:
    label, unit = PANELS[metric]
    axes.set_title(label, loc="left", fontweight="bold", color="#2b333c")
    axes.set_xticks(range(len(groups)), [f"{group['rate']:,}" if group["rate"] else "idle" for group in groups])
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.tick_params(axis="x", length=0)
    bar = WIDTH / len(modes)
    for at, group in enumerate(groups):
        for nth, mode in enumerate(modes):
            if mode in group["modes"]:
                where = at - WIDTH / 2 + (nth + 0.5) * bar
                _bar(axes, where, bar, group["modes"][mode], metric, unit, _colour(modes, mode))
        if metric == "total_s" and group["floor_s"]:
            axes.hlines(group["floor_s"], at - WIDTH / 2, at + WIDTH / 2, color="#1b2430", linewidth=1.3, zorder=5)
    axes.set_ylim(bottom=0)


def _bar(axes: Axes, where: float, width: float, figures: Figures, metric: str, unit: float, colour: str) -> None:
    value = figures[metric]["median"]
    if value is not None:
        axes.bar(where, value * unit, width=width * 0.9, color=colour, zorder=3)
    elif set(figures["ended"]) - {"not offered", "completed"}:
        axes.text(where, 0.02, "×", transform=axes.get_xaxis_transform(), ha="center", color=colour, fontweight="bold")


def _colour(modes: Sequence[str], mode: str) -> str:
    return COLOURS[modes.index(mode) % len(COLOURS)]
