"""The comparison of `vferry bench network` as a picture."""

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from vferry.model.report import Phase
from vferry.report import bench, words
from vferry.report.picture import STYLE

COLOURS = ("#7a8a99", "#3f8fd2", "#e0a030", "#4aa58a", "#b07cc6")
# How many times the least median the greatest value must be for a logarithmic scale.
FAR = 30
TITLES = {
    "longest_gap_ms": "longest gap, ms",
    "tcp_stall_ms": "TCP stall, ms",
    "pause_ms": "pause, ms",
    "total_s": "total, s",
}


def write_bench(runs: list[dict[str, Any]], path: Path) -> None:
    """Writes the picture as PNG: each run as a dot, each median as a bar. Raises OSError."""
    result = bench.summary(runs)
    with mpl.rc_context(STYLE):
        metrics = bench.shown(result)
        columns = len(metrics) // 2 + 1
        figure = Figure(figsize=(13 * columns / 3, 8))
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, columns)
        figure.subplots_adjust(left=0.06, right=0.97, top=0.83, bottom=0.12, hspace=0.38, wspace=0.24)
        for panel, metric in zip(axes.flat, metrics, strict=False):
            _metric(panel, metric, result, runs)
        handles = _phases(axes.flat[len(metrics)], result)
        for empty in axes.flat[len(metrics) + 1 :]:
            empty.set_visible(False)
        _titles(figure, result)
        if handles:
            columns = len(handles)
            figure.legend(
                handles=handles, loc="lower right", bbox_to_anchor=(0.975, 0.01), ncols=columns, frameon=False
            )
        figure.savefig(path, format="png", dpi=130, facecolor="white")


def _titles(figure: Figure, result: dict[str, Any]) -> None:
    counts = " · ".join(
        f"{bench.label(name)}: {ran['completed']} of {ran['all']} runs completed"
        for name, ran in result["runs"].items()
    )
    title = "Network interruption of a live migration"
    figure.text(0.06, 0.95, title, fontsize=16, fontweight="bold", color="#1b2430", va="center")
    note = "bar: median, dots: runs"
    text = f"{counts} ({note})".replace("$", r"\$")
    figure.text(0.06, 0.905, text, fontsize=11, color="#4a545f", va="center")


def _metric(axes: Axes, metric: str, result: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    axes.set_title(TITLES.get(metric, bench.LABELS[metric]), loc="left", fontweight="bold", color="#2b333c")
    _cases(axes, result)
    top = 0.0
    for at, (name, case) in enumerate(result["cases"].items()):
        figures, colour = case[metric], COLOURS[at % len(COLOURS)]
        if figures["median"] is None:
            axes.text(at, 0.5, words.NOT_MEASURED, transform=axes.get_xaxis_transform(), ha="center", color="#6a7580")
            continue
        values = bench.values(runs, name, metric)
        axes.bar(at, figures["median"], width=0.56, color=colour, alpha=0.55, zorder=2)
        spots = [at + 0.3 * ((nth + 0.5) / len(values) - 0.5) for nth in range(len(values))]
        axes.scatter(spots, values, s=22, color=colour, edgecolor="white", linewidth=0.7, zorder=4)
        top = max(top, figures["max"])
        axes.annotate(
            bench.word(metric, figures["median"]),
            (at, figures["max"]),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontweight="bold",
            color="#2b333c",
        )
    medians = [case[metric]["median"] for case in result["cases"].values() if case[metric]["median"]]
    if medians and top > FAR * min(medians):
        # Else the case that loses most would make the others look alike.
        axes.set_yscale("symlog", linthresh=10 ** math.floor(math.log10(min(medians))))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.set_title(axes.get_title(loc="left") + " (logarithmic)", loc="left", fontweight="bold", color="#2b333c")
        axes.set_ylim(0, top * 4)
    else:
        axes.set_ylim(0, top * 1.2 or 1)


def _phases(axes: Axes, result: dict[str, Any]) -> list[Patch]:
    """The medians of the probes lost in each phase, one upon the other; returns what the legend needs."""
    axes.set_title("probes lost by phase, medians", loc="left", fontweight="bold", color="#2b333c")
    _cases(axes, result)
    handles: list[Patch] = []
    sums = [0.0] * len(result["cases"])
    for phase in bench.losing_phases(result):
        colour = words.COLOURS[Phase(phase)] if phase in list(Phase) else "#555555"
        heights = [case.get(phase, {}).get("lost", {}).get("median") or 0 for case in result["phases"].values()]
        axes.bar(range(len(sums)), heights, width=0.56, bottom=sums, color=colour, zorder=3)
        sums = [below + height for below, height in zip(sums, heights, strict=True)]
        handles.append(Patch(color=colour, label=phase))
    if not handles:
        measured = any(case for case in result["phases"].values())
        text = "none lost" if measured else words.NOT_MEASURED
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color="#6a7580")
    axes.set_ylim(0, max([*sums, 0]) * 1.2 or 1)
    return handles


def _cases(axes: Axes, result: dict[str, Any]) -> None:
    # On two lines, so that five of them fit side by side.
    names = [bench.label(name).replace("$", r"\$").replace(" ", "\n", 1) for name in result["cases"]]
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, max(len(names) - 0.4, 0.6))
    axes.tick_params(axis="x", length=0, labelsize=10.5)
