"""The share of migrations that ended in time as a picture: a curve a mode over the link's speed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vferry.report import bench_success
from vferry.report.bench_transfer_picture import COLOURS
from vferry.report.picture import STYLE

APART = 0.006
"""By how much curves that lie on each other are moved apart."""
Figures = dict[str, Any]


def write_success(groups: Sequence[Figures], path: Path) -> None:
    """Writes the picture as PNG, a panel a setting. Raises OSError."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 4.2 * max(1, len(groups))))
        FigureCanvasAgg(figure)
        panels = figure.subplots(max(1, len(groups)), 1, squeeze=False)
        for (axes,), group in zip(panels, groups, strict=False):
            _panel(axes, group)
        figure.tight_layout()
        figure.savefig(path, format="png", dpi=110, facecolor="white")


def _panel(axes: Axes, group: Figures) -> None:
    speeds = bench_success.links(group)
    for nth, (mode, points) in enumerate(group["modes"].items()):
        at = [speeds.index(point["link"]) for point in points]
        shares = [point["ended"] / point["of"] - nth * APART for point in points]
        axes.plot(at, shares, marker="o", markersize=4, color=COLOURS[nth % len(COLOURS)], label=mode)
    axes.set_xticks(range(len(speeds)), [f"{link:,}" if link else "not shaped" for link in speeds])
    axes.set_xlabel("link, Mbit/s")
    axes.set_ylim(-0.1, 1.05)
    axes.set_yticks((0, 0.25, 0.5, 0.75, 1), ("none", "¼", "half", "¾", "all"))
    axes.set_title(bench_success.title(group), loc="left", fontweight="bold", color="#2b333c")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
