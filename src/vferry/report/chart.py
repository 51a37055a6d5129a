"""The timeline as SVG inside the page: it takes its colours from the page, so it is dark where that is dark."""

import math
from html import escape

from vferry.model.report import Phase, PhaseSpan, ProbeBuckets, Timeline
from vferry.report import words
from vferry.report.layout import coarser, place

LEFT, WIDTH, PANEL, SPACE, TOP, BAND = 62, 920, 120, 46, 34, 30
LETTER = 7.4
LATE_MS = 200
TICKS = (1, 2, 5, 10)


class Scale:
    """From seconds to the drawing's x."""

    def __init__(self, end: float) -> None:
        self.end = end

    def __call__(self, moment: float) -> float:
        return round(LEFT + WIDTH * min(max(moment / self.end, 0.0), 1.0), 2)


def draw(timeline: Timeline | None, total_s: float | None) -> str:
    """The drawing, or an empty text if there is nothing to draw."""
    if timeline is None or not timeline.phases:
        return ""
    ends = [span.end_s for span in timeline.phases] + [moment for moment, _ in timeline.rate]
    x = Scale(max([*ends, total_s or 0.0, 0.001]))
    probes = coarser(timeline.probes) if timeline.probes else None
    per = f", per {words.milliseconds(probes.bucket_ms)}" if probes else ""
    panels = [
        (f"Probes lost (red) or late (orange){per}", _bars(probes, x)),
        (f"Slowest answer in ms{per}; dashed: late above {LATE_MS} ms", _round_trips(probes, x)),
        ("Transfer rate on the wire in MB/s", _rate(timeline.rate, x)),
    ]
    parts = _band(timeline.phases, x)
    top = TOP + BAND
    for title, body in panels:
        top += SPACE
        shade = [_box(span, x, PANEL, 0, "shade") for span in timeline.phases]
        frame = f'<line class="axis" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{PANEL}" y2="{PANEL}"/>'
        text = f'<text class="head" x="{LEFT}" y="-9">{escape(title)}</text>'
        parts.append(f'<g transform="translate(0 {top})">{"".join(shade)}{text}{body or _nothing()}{frame}</g>')
        top += PANEL
    parts.append(_time_axis(x, top))
    label = "Phases, lost and late probes, answer times and transfer rate over time"
    return f'<svg viewBox="0 0 {LEFT + WIDTH + 18} {top + 44}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _box(span: PhaseSpan, x: Scale, height: float, top: float, kind: str) -> str:
    width = max(x(span.end_s) - x(span.start_s), 2.5 if kind == "band" else 0.5)
    left = min(x(span.start_s), LEFT + WIDTH - width)
    tip = f"<title>{span.phase}: {words.seconds(span.end_s - span.start_s)}</title>"
    style = f'style="fill:{words.COLOURS[span.phase]}"'
    return f'<rect class="{kind}" {style} x="{left}" y="{top}" width="{width:.2f}" height="{height}">{tip}</rect>'


def _band(phases: list[PhaseSpan], x: Scale) -> list[str]:
    parts = [_box(span, x, BAND, TOP, "band") for span in phases]
    above: list[tuple[Phase, float, float]] = []
    for span in phases:
        needs, width = len(span.phase) * LETTER, x(span.end_s) - x(span.start_s)
        centre = x(span.start_s) + width / 2
        if needs + 8 > width:
            above.append((span.phase, centre, needs))
        else:
            parts.append(f'<text class="in" x="{centre:.2f}" y="{TOP + BAND / 2 + 4}">{span.phase}</text>')
    centres, widths = [centre - LEFT for _, centre, _ in above], [width for _, _, width in above]
    for left, (phase, centre, width) in zip(place(centres, widths, WIDTH, 8), above, strict=True):
        middle = LEFT + left + width / 2
        colour = words.COLOURS[phase]
        parts.append(
            f'<text class="out" style="fill:{colour}" x="{middle:.2f}" y="14">{phase}</text>'
            f'<line style="stroke:{colour}" x1="{middle:.2f}" x2="{centre:.2f}" y1="19" y2="{TOP}"/>'
        )
    return parts


def _bars(probes: ProbeBuckets | None, x: Scale) -> str:
    if probes is None:
        return ""
    top = max((a + b for a, b in zip(probes.lost, probes.late, strict=True)), default=0)
    if top == 0:
        return _said("none lost, none late")
    parts, width = _levels(top), probes.bucket_ms / 1000
    for at, (lost, late) in enumerate(zip(probes.lost, probes.late, strict=True)):
        base = float(PANEL)
        for number, kind in ((lost, "lost"), (late, "late")):
            height = (PANEL - 6) * number / top
            base -= height
            if number:
                left, wide = x(at * width), max(x((at + 1) * width) - x(at * width), 1.5)
                tip = f"<title>{number} {kind} at {at * width:.1f} s</title>"
                box = f'x="{left}" y="{base:.2f}" width="{wide:.2f}" height="{height:.2f}"'
                parts += f'<rect class="{kind}" {box}>{tip}</rect>'
    return parts


def _round_trips(probes: ProbeBuckets | None, x: Scale) -> str:
    known = [value for value in probes.rtt_ms_max if value is not None] if probes else []
    if probes is None or not known:
        return ""
    low, high = math.log10(max(min(*known, 1.0), 0.01)) - 0.2, math.log10(max(*known, 500.0)) + 0.2

    def y(value: float) -> float:
        return round(PANEL * (1 - (math.log10(max(value, 0.01)) - low) / (high - low)), 2)

    grid = "".join(_level(y(10.0**power), f"{10.0**power:g}") for power in range(math.ceil(low), int(high) + 1))
    path, pen = [], "M"
    for at, value in enumerate(probes.rtt_ms_max):
        if value is None:
            pen = "M"
            continue
        # A dot of its own where both neighbours had no answer.
        path.append(f"{pen}{x((at + 0.5) * probes.bucket_ms / 1000)} {y(value)}h0.01")
        pen = "L"
    late = f'<line class="limit" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y(LATE_MS)}" y2="{y(LATE_MS)}"/>'
    return f'{grid}{late}<path class="line" d="{"".join(path)}"/>'


def _rate(rate: list[tuple[float, float]], x: Scale) -> str:
    top = max((value for _, value in rate), default=0.0) / 1e6
    if not rate or top <= 0:
        return _said("nothing was sent") if rate else ""
    points = " ".join(f"{x(moment)},{PANEL - (PANEL - 6) * value / 1e6 / top:.2f}" for moment, value in rate)
    foot = f"{x(rate[0][0])},{PANEL} {points} {x(rate[-1][0])},{PANEL}"
    return f'{_levels(top)}<polygon class="area" points="{foot}"/><polyline class="line" points="{points}"/>'


def _levels(top: float) -> str:
    """Lines and numbers for 0 to `top`."""
    step = _step(top / 3)
    return "".join(_level(PANEL - (PANEL - 6) * at * step / top, f"{at * step:g}") for at in range(int(top / step) + 1))


def _level(y: float, label: str) -> str:
    line = f'<line class="grid" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.2f}" y2="{y:.2f}"/>'
    return f'{line}<text class="y" x="{LEFT - 7}" y="{y + 4:.2f}">{label}</text>'


def _time_axis(x: Scale, top: float) -> str:
    step = _step(x.end / 9)
    marks = "".join(
        f'<text class="x" x="{x(at * step)}" y="{top + 18}">{at * step:g}</text>' for at in range(int(x.end / step) + 1)
    )
    return f'{marks}<text class="x" x="{LEFT + WIDTH / 2}" y="{top + 38}">seconds since the start</text>'


def _step(least: float) -> float:
    """The least round number that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next((tick * power for tick in TICKS if tick * power >= least), 10 * power)


def _nothing() -> str:
    return _said(words.NOT_MEASURED)


def _said(text: str) -> str:
    return f'<text class="x" x="{LEFT + WIDTH / 2}" y="{PANEL / 2 + 4}">{text}</text>'
