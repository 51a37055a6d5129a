"""A report as one page of HTML that needs nothing else."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from vferry.model.report import Report, Status, Tcp, Vf, VfState
from vferry.report import words
from vferry.report.chart import draw

# Nothing is loaded and nothing is run, whatever a name in the report may try.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
TONES = {Status.COMPLETED: "good", Status.FAILED: "bad"}


def write_page(report: Report, path: Path) -> None:
    """Writes the page. Raises OSError."""
    path.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """The page as text."""
    title = escape(f"{report.guest}: {words.way(report)}")
    style = files("vferry.report").joinpath("page.css").read_text(encoding="utf-8")
    drawing = draw(report.timeline, report.total_s)
    body = [
        _header(report, title),
        _figures(report),
        _section("Timeline", f'<div class="wide">{drawing}</div>' if drawing else _paragraph(words.NOT_MEASURED)),
        _section("Phases", _phases(report)),
        _section("Virtual function", "".join(map(_vf, (report.vf, *report.more_vfs)))),
        _section("Transfer", _facts(words.transfer_facts(report.transfer))),
        _connections(report),
        _section("Steps", _steps(report)),
        _notes(words.caveats(report)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head>\n<body><main>{''.join(body)}</main></body></html>\n"
    )


def _header(report: Report, title: str) -> str:
    tone = "warn" if report.degraded else TONES.get(report.status, "warn")
    mode = f"network mode {report.network_mode}" if report.network_mode else "no network mode was chosen"
    reason = f" — {report.reason}" if report.reason else ""
    return (
        f'<header><h1>{title}</h1><p class="state {tone}">{escape(words.status(report))}</p>'
        f"<p>{escape(mode + reason)}</p>"
        f'<p class="dim">operation {escape(report.operation)}, started {escape(report.started)}</p></header>'
    )


def _figures(report: Report) -> str:
    network = report.network
    ratio = words.ratio(report.transfer) if report.transfer else words.NOT_MEASURED
    figures = [
        ("probes lost", words.count(network.lost if network else None), _of(report)),
        ("probes late", words.count(network.late if network else None), "answered after 200 ms to 1 s"),
        ("longest gap", words.milliseconds(network.longest_gap_ms if network else None), "without an answer"),
        ("pause", words.milliseconds(report.pause_ms), "guest stopped by QEMU"),
        ("total", words.seconds(report.total_s), "from start to end"),
        ("transfer ratio", ratio, "guest memory to wire"),
    ]
    if network and network.tcp:
        figures.append(("TCP stall", words.milliseconds(network.tcp.stall_ms), _connection(network.tcp)))
    if report.dark_s is not None:
        figures.append(("without the NIC", words.seconds(report.dark_s), "no VF, and nothing beside it"))
    cards = (
        f"<div><dt>{escape(label)}</dt><dd{_quiet(value)}>{escape(value)}</dd><small>{escape(hint)}</small></div>"
        for label, value, hint in figures
    )
    return f'<dl class="figures">{"".join(cards)}</dl>'


def _of(report: Report) -> str:
    if report.network is None:
        return "not answered within 1 s"
    return f"of {words.count(report.network.sent)}, {report.network.probe_hz:,} a second"


def _connection(tcp: Tcp) -> str:
    end = "survived" if tcp.survived else "did not survive" if tcp.ended else "silent at the end"
    return f"without an echo; {words.count(tcp.retransmissions)} retransmissions, {end}"


def _quiet(value: str) -> str:
    return ' class="quiet"' if value == words.NOT_MEASURED else ""


def _phases(report: Report) -> str:
    rows = words.phase_rows(report)
    if not rows:
        return _paragraph(words.NOT_MEASURED)
    marked = ((f'<i style="background:{words.COLOURS[row[0]]}"></i>{row[0]}', *map(escape, row[1:])) for row in rows)
    return _table(("phase", "time", "lost", "late", "longest gap"), marked, numbers=(1, 2, 3, 4))


def _steps(report: Report) -> str:
    if not report.steps:
        return _paragraph("No step was carried out.")
    rows = (
        (
            f'<i style="background:{words.COLOURS[step.phase]}"></i>{step.phase}',
            escape(step.name),
            escape(step.host or ""),
            escape(step.started or words.NOT_MEASURED),
            escape(words.milliseconds(step.duration_ms)),
            escape(step.outcome),
            escape(step.detail),
        )
        for step in report.steps
    )
    return _table(("phase", "step", "host", "started", "took", "outcome", "detail"), rows, numbers=(4,))


def _vf(vf: Vf) -> str:
    return f'<div class="pair">{_vf_state("before", vf.before)}{_vf_state("after", vf.after)}</div>'


def _vf_state(when: str, vf: VfState | None) -> str:
    facts = words.vf_facts(vf)
    return f"<div><h3>{when}</h3>{_facts(facts) if facts else _paragraph('none')}</div>"


def _connections(report: Report) -> str:
    if report.connections is None:
        return ""
    return _section("Tracked connections", _paragraph(words.connections(report.connections)))


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return _section("Notes", f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>")


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    rows = (f"<dt>{escape(label)}</dt><dd{_quiet(value)}>{escape(value)}</dd>" for label, value in facts)
    return f'<dl class="facts">{"".join(rows)}</dl>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int]) -> str:
    """A table; its cells are HTML already."""
    marks = [' class="number"' if at in numbers else "" for at in range(len(heads))]
    top = "".join(f"<th{mark}>{escape(head)}</th>" for head, mark in zip(heads, marks, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{mark}>{cell}</td>" for cell, mark in zip(row, marks, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _paragraph(text: str) -> str:
    return f'<p class="dim">{escape(text)}</p>'
