"""The timeline of a migration as a picture."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator

from vferry.model.report import PhaseSpan, ProbeBuckets, Report, Timeline
from vferry.report import words
from vferry.report.layout import coarser, place

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a94a0",
    "axes.labelcolor": "#2b333c",
    "axes.titlesize": 11,
    "xtick.color": "#4a545f",
    "ytick.color": "#4a545f",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e3e7ec",
    "axes.axisbelow": True,
}
LOST, LATE, RTT, RATE = "#c1272d", "#e8912d", "#2f6f9f", "#3f8fd2"
# A phase is drawn at least this share of the whole time wide, so that the shortest is seen.
NARROWEST = 0.004
LATE_MS = 200


def write_timeline(report: Report, path: Path) -> None:
    """Writes the picture as PNG. Raises OSError."""
    with mpl.rc_context(STYLE):
        figure = _figure(report)
        figure.savefig(path, format="png", dpi=130, facecolor="white")


def _figure(report: Report) -> Figure:
    timeline = report.timeline or Timeline()
    probes = coarser(timeline.probes) if timeline.probes else None
    figure = Figure(figsize=(13, 8))
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        4, 1, height_ratios=[0.42, 2, 2, 2], hspace=0.27, left=0.065, right=0.795, top=0.845, bottom=0.075
    )
    band = figure.add_subplot(grid[0])
    others = [figure.add_subplot(grid[at], sharex=band) for at in (1, 2, 3)]
    end = _end(report, timeline)
    for axes in others:
        _shade(axes, timeline.phases)
    _probes(others[0], probes)
    _round_trips(others[1], probes)
    _rate(others[2], timeline.rate)
    for axes in (band, *others[:2]):
        axes.tick_params(labelbottom=False)
    others[2].set_xlabel("seconds since the start")
    band.set_xlim(0, end)
    _band(band, timeline.phases, end)
    figure.align_ylabels(others)
    _titles(figure, report)
    _legend(figure, report, timeline)
    return figure


def _end(report: Report, timeline: Timeline) -> float:
    """The end of the time axis in seconds."""
    probes = timeline.probes
    ends = [span.end_s for span in timeline.phases] + [moment for moment, _ in timeline.rate]
    ends += [len(probes.lost) * probes.bucket_ms / 1000] if probes else []
    return max([*ends, report.total_s or 0.0, 0.001])


def _titles(figure: Figure, report: Report) -> None:
    mode = f", network mode {report.network_mode}" if report.network_mode else ""
    head = words.clean(f"{report.guest}: {words.way(report)}{mode}").replace("$", r"\$")
    title = figure.text(0.065, 0.957, head, fontsize=16, fontweight="bold", color="#1b2430", va="center")
    room = 0.92 * figure.bbox.width
    title.set_fontsize(max(6.0, 16 * min(1.0, room / title.get_window_extent().width)))
    state = words.clean(words.status(report)).replace("$", r"\$")
    figure.text(0.065, 0.917, f"{state} · {words.headline(report)}", fontsize=11, color="#4a545f", va="center")


def _shade(axes: Axes, phases: list[PhaseSpan]) -> None:
    for span in phases:
        axes.axvspan(span.start_s, span.end_s, color=words.COLOURS[span.phase], alpha=0.09, linewidth=0, zorder=0)


def _band(axes: Axes, phases: list[PhaseSpan], end: float) -> None:
    """The phases as a band, each with its name: in the band where it fits, else above with a line to its place."""
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(axis="x", length=0)
    per_px = end / axes.get_window_extent().width
    above: list[tuple[float, float, Text]] = []
    for span in phases:
        width = max(span.end_s - span.start_s, end * NARROWEST)
        left = min(span.start_s, end - width)
        colour = words.COLOURS[span.phase]
        axes.barh(0.5, width, left=left, height=1, color=colour, edgecolor="white", linewidth=0.8)
        text = axes.text(left + width / 2, 0.48, span.phase, ha="center", va="center", color="white", weight="bold")
        needs = text.get_window_extent().width * per_px
        if needs > width - 8 * per_px:
            text.set(color=colour, fontsize=9.5)
            above.append((left + width / 2, text.get_window_extent().width * per_px, text))
    _lift(axes, above, end, 9 * per_px)


def _lift(axes: Axes, above: list[tuple[float, float, Text]], end: float, space: float) -> None:
    """Moves names above the band; each keeps a line to its phase."""
    lefts = place([centre for centre, _, _ in above], [width for _, width, _ in above], end, space)
    for left, (centre, width, text) in zip(lefts, above, strict=True):
        text.set(x=left + width / 2, y=1.58)
        ends = [centre, left + width / 2], [1.0, 1.3]
        axes.plot(*ends, color=text.get_color(), linewidth=1, clip_on=False)


def _probes(axes: Axes, probes: ProbeBuckets | None) -> None:
    axes.set_ylabel("probes")
    axes.set_title(f"Probes lost or late{_per(probes)}", loc="left", color="#2b333c")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    if probes is None:
        _nothing(axes)
        return
    width = probes.bucket_ms / 1000
    left = [at * width for at in range(len(probes.lost))]
    axes.bar(left, probes.lost, width, align="edge", color=LOST, zorder=3)
    axes.bar(left, probes.late, width, align="edge", bottom=probes.lost, color=LATE, zorder=3)
    top = max((a + b for a, b in zip(probes.lost, probes.late, strict=True)), default=0)
    axes.set_ylim(0, max(5, top * 1.12))
    if top == 0:
        axes.text(0.5, 0.5, "none lost, none late", transform=axes.transAxes, ha="center", color="#6a7580")


def _round_trips(axes: Axes, probes: ProbeBuckets | None) -> None:
    axes.set_ylabel("milliseconds")
    title = f"Slowest answer{_per(probes)} (dashed: late above {LATE_MS} ms)"
    axes.set_title(title, loc="left", color="#2b333c")
    known = [value for value in probes.rtt_ms_max if value is not None] if probes else []
    if probes is None or not known:
        _nothing(axes)
        return
    width = probes.bucket_ms / 1000
    times = [(at + 0.5) * width for at in range(len(probes.rtt_ms_max))]
    values = [float("nan") if value is None else max(value, 0.01) for value in probes.rtt_ms_max]
    axes.plot(times, values, color=RTT, linewidth=1.5, marker=".", markersize=3.5, zorder=3)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(min(1.0, *known) * 0.6 or 0.01, max(500.0, *known) * 1.6)
    axes.axhline(LATE_MS, color=LATE, linewidth=1.2, linestyle=(0, (5, 3)), zorder=2)


def _rate(axes: Axes, rate: list[tuple[float, float]]) -> None:
    axes.set_ylabel("MB/s")
    axes.set_title("Transfer rate on the wire", loc="left", color="#2b333c")
    if not rate:
        _nothing(axes)
        return
    times = [moment for moment, _ in rate]
    values = [value / 1e6 for _, value in rate]
    axes.fill_between(times, values, color=RATE, alpha=0.25, linewidth=0, zorder=2)
    axes.plot(times, values, color=RATE, linewidth=1.6, zorder=3)
    axes.set_ylim(0, max(max(values) * 1.15, 0.1))


def _per(probes: ProbeBuckets | None) -> str:
    return f", per {words.milliseconds(probes.bucket_ms)}" if probes else ""


def _nothing(axes: Axes) -> None:
    axes.set_yticks([])
    axes.text(0.5, 0.5, words.NOT_MEASURED, transform=axes.transAxes, ha="center", va="center", color="#6a7580")


def _legend(figure: Figure, report: Report, timeline: Timeline) -> None:
    """Beside the data: the phases with their time and losses, which the shortest phase has no room for."""
    ran = {span.phase for span in timeline.phases}
    rows = [row for row in words.phase_rows(report) if row[0] in ran]
    handles = [Patch(color=words.COLOURS[row[0]]) for row in rows]
    labels = [f"{phase}, {took}\n{_losses(lost, gap)}" for phase, took, lost, _, gap in rows]
    if timeline.probes:
        handles += [Patch(color=LOST), Patch(color=LATE)]
        labels += ["lost: no answer in 1 s", f"late: after more than {LATE_MS} ms"]
    if handles:
        figure.legend(
            handles,
            labels,
            loc="upper left",
            bbox_to_anchor=(0.805, 0.857),
            frameon=False,
            fontsize=10,
            labelspacing=0.85,
            handlelength=1.1,
            handleheight=1.1,
            alignment="left",
        )


def _losses(lost: str, gap: str) -> str:
    if lost == words.NOT_MEASURED:
        return words.NOT_MEASURED
    return f"{lost} lost, gap {gap}"
