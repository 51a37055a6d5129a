"""A report for the terminal."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vferry.model.report import Kind, Report, Status, Vf
from vferry.report import words

STYLES = {
    Status.COMPLETED: "bold green",
    Status.REFUSED: "bold yellow",
    Status.UNDONE: "bold yellow",
    Status.FAILED: "bold red",
    Status.ABORTED: "bold yellow",
}


def print_report(report: Report, console: Console | None = None) -> None:
    """Prints a report, without colours where standard output is no terminal."""
    (console or terminal()).print(render(report))


def terminal() -> Console:
    """Standard output; where it is no terminal, wide enough for most lines."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    return console


def render(report: Report) -> RenderableType:
    """A report as something rich can print."""
    parts: list[RenderableType] = [_title(report), Padding(_summary(report), (0, 0, 0, 2))]
    rows = words.phase_rows(report)
    if rows:
        parts += ["", _table(("phase", "time", "lost", "late", "longest gap"), rows, numbers=(1, 2, 3, 4))]
    if report.steps:
        parts += ["", _steps(report)]
    notes = words.caveats(report)
    if notes:
        parts += ["", *(Text(f"• {words.clean(note)}") for note in notes)]
    return Group(*parts)


def _title(report: Report) -> Text:
    style = "bold yellow" if report.degraded else STYLES[report.status]
    return Text.assemble(
        (words.clean(report.guest), "bold"),
        words.clean(f" {words.way(report)}: "),
        (words.clean(words.status(report)), style),
        (f"  ({report.operation}, {report.started})", "dim"),
    )


def _summary(report: Report) -> Table:
    lines = [("reason", report.reason)] if report.reason else []
    if report.kind is Kind.MIGRATION:
        lines += _migration(report)
    else:
        lines += [("total", words.seconds(report.total_s))]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    for label, value in lines:
        table.add_row(label, Text(words.clean(value)))
    return table


def _migration(report: Report) -> list[tuple[str, str]]:
    network = report.network
    compressed = words.compression(report.transfer) if report.transfer else None
    devices = words.device_state(report.transfer) if report.transfer else None
    stalled = words.stalls(report.transfer)
    return [
        ("network mode", report.network_mode or "not chosen"),
        ("total", words.seconds(report.total_s)),
        ("pause", words.milliseconds(report.pause_ms)),
        *([("without the NIC", words.seconds(report.dark_s))] if report.dark_s is not None else []),
        ("lost", words.lost(network)),
        ("late", words.count(network.late if network else None)),
        ("longest gap", words.milliseconds(network.longest_gap_ms if network else None)),
        *([("TCP", words.tcp(network.tcp))] if network and network.tcp else []),
        ("transfer", _transfer(report)),
        *([("as it stalled", stalled)] if stalled else []),
        *([("compression", compressed)] if compressed else []),
        *([("connections", words.connections(report.connections))] if report.connections else []),
        *([("state of devices", devices)] if devices else []),
        *(line for vf in (report.vf, *report.more_vfs) for line in _vf_lines(vf)),
    ]


def _transfer(report: Report) -> str:
    if report.transfer is None:
        return words.NOT_MEASURED
    if report.transfer.guest_bytes is None:
        return f"{report.transfer.policy}, not completed"
    facts = dict(words.transfer_facts(report.transfer))
    sizes = f"{facts['guest memory sent']} as {facts['on the wire']} on the wire ({facts['ratio']})"
    return f"{facts['policy']}, {sizes}, rounds: {facts['rounds']}, CPU time: {facts['CPU time']}"


def _vf_lines(vf: Vf) -> list[tuple[str, str]]:
    return [("VF before", _vf(words.vf_facts(vf.before))), ("VF after", _vf(words.vf_facts(vf.after)))]


def _vf(facts: list[tuple[str, str]]) -> str:
    if not facts:
        return "none"
    (_, host), (_, address), *rest = facts
    more = ", ".join(f"{label} {value}" for label, value in rest)
    return f"{address} on {host}" + (f" ({more})" if more else "")


def _steps(report: Report) -> Table:
    rows = [
        (step.phase, step.name, step.host or "", words.milliseconds(step.duration_ms), step.outcome, step.detail)
        for step in report.steps
    ]
    return _table(("phase", "step", "host", "took", "outcome", "detail"), rows, numbers=(3,))


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]], numbers: tuple[int, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for at, head in enumerate(heads):
        table.add_column(head, justify="right" if at in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(words.clean(cell)) for cell in row))
    return table
