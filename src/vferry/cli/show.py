"""What several commands print: findings, a plan's steps, a running migration, a report's end."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from rich.text import Text

from vferry.cli import output
from vferry.host.api import Migration
from vferry.migration.record import Outcome, StepRecord
from vferry.model.problem import Exit
from vferry.model.report import Phase, Report, Stall, Status
from vferry.network.modes import stages
from vferry.network.step import Step
from vferry.plan.facts import Finding, Severity
from vferry.plan.host_step import HostStep
from vferry.plan.outlook import Outlook
from vferry.plan.plan import Plan
from vferry.report import words
from vferry.report.copy_figures import CopyFigures
from vferry.report.pace import Pace
from vferry.report.progress import Progress
from vferry.transfer.multifd import PAGE_BYTES

_MARKS = {Severity.ERROR: ("✗", "red"), Severity.WARNING: ("!", "yellow"), Severity.INFO: ("·", "cyan")}


def findings(found: tuple[Finding, ...], *, err: bool = False) -> None:
    """One line a finding, with its remedy below it."""
    for finding in found:
        mark, colour = _MARKS[finding.severity]
        click.echo(f"{click.style(mark, fg=colour)} {finding.message}.", err=err)
        if finding.remedy:
            click.echo(f"  → {finding.remedy}", err=err)


def outlooks(found: tuple[Outlook, ...]) -> None:
    """The network modes, one a line, each with what is to say of it below."""
    click.echo(click.style("network modes", bold=True))
    for outlook in found:
        mark, colour = ("✓", "green") if outlook.possible else ("✗", "red")
        click.echo(f"  {click.style(mark, fg=colour)} {outlook.mode.value}")
        for finding in outlook.findings:
            if outlook.possible or finding.severity is Severity.ERROR:
                remedy = f" → {finding.remedy}" if finding.remedy else ""
                click.echo(f"      {finding.message}.{remedy}")


def steps(plan: Plan) -> None:
    """What `--dry-run` prints: the plan is the list of its steps."""
    click.echo(f"{plan.guest}: {plan.source} → {plan.destination}, mode {plan.network_mode} ({plan.reason})")
    phase = None
    for number, step in enumerate(stages(plan).all, start=1):
        if step.phase is not phase:
            phase = step.phase
            click.echo(click.style(f"{phase.value}", bold=True))
        click.echo(f"  {number:2}. {step.host}: {step.summary}")


def host_steps(steps: Iterable[HostStep | Step]) -> None:
    """What `--dry-run` prints of what is done to one host alone."""
    for number, step in enumerate(steps, start=1):
        click.echo(f"  {number:2}. {step.summary}")


Files = tuple[Path | None, Path | None, Path | None]
"""Where a report goes as JSON, as a page and as a picture."""

F = TypeVar("F", bound=Callable[..., Any])


def file_options(command: F) -> F:
    """The options by which a report is written to files, as well as printed."""
    for name, what in (
        ("picture", "its timeline as a PNG picture"),
        ("page", "it as one HTML page"),
        ("report", "JSON"),
    ):
        path = click.Path(path_type=Path, dir_okay=False)
        command = click.option(f"--{name}", f"{name}_file", type=path, help=f"Write {what} to this file.")(command)
    return command


def write(report: Report, files: Files) -> None:
    """Writes a report to the files that were asked for. Raises OSError, which names the one that cannot be written."""
    as_json, as_page, as_picture = files
    if as_json:
        with _named(as_json):
            as_json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    if as_page or as_picture:
        # Drawing takes most of a second to import.
        from vferry.report import page, picture

        if as_page:
            with _named(as_page):
                page.write_page(report, as_page)
        if as_picture:
            with _named(as_picture):
                picture.write_timeline(report, as_picture)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def exit_of(report: Report) -> Exit:
    """The exit code that a report stands for."""
    if report.status is Status.COMPLETED:
        return Exit.OPERATOR if report.degraded else Exit.DONE
    return {
        Status.REFUSED: Exit.REFUSED,
        Status.UNDONE: Exit.UNDONE,
        Status.ABORTED: Exit.ABORTED,
    }.get(report.status, Exit.OPERATOR)


def copy_figures(migration: Migration, to_go_s: float | None = None) -> CopyFigures:
    """How a copy stands, to be shown; without a percentage before QEMU has counted the guest's memory."""
    total = migration.total_bytes
    return CopyFigures(
        percent=100 * (1 - migration.remaining_bytes / total) if total else None,
        rate=migration.wire_rate,
        to_go_s=to_go_s,
        rounds=migration.rounds,
        remaining_bytes=migration.remaining_bytes,
        dirty_rate=migration.dirty_rate * PAGE_BYTES or None,
        expected_pause_ms=migration.expected_pause_ms,
        ratio=migration.ratio,
    )


class Stage:
    """Shows a running migration on standard error, which leaves standard output to the result."""

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._console = output.standard_error()
        self._progress = Progress(plan.guest, plan.source, plan.destination, self._console)
        self._pace = Pace()

    def __enter__(self) -> "Stage":
        self._progress.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.__exit__(None, None, None)

    def phase(self, phase: Phase, began: float | None = None) -> None:
        self._progress.phase(phase, began)

    def started(self, phase: Phase, name: str, host: str) -> None:
        """Steps are rows of the report; while it runs, phases are enough."""

    def ended(self, record: StepRecord) -> None:
        if record.outcome not in (Outcome.DONE, Outcome.UNDONE):
            said = f"{record.name} on {record.host}: {record.outcome.value}: {record.detail}"
            self._console.print(Text(said), soft_wrap=True)

    def progress(self, migration: Migration) -> None:
        to_go = self._pace.to_go(migration.remaining_bytes, migration.rounds, self._clock())
        self._progress.copy(copy_figures(migration, to_go))

    def stalled(self, stall: Stall) -> None:
        self._console.print(Text(f"copy stalled: {words.stall(stall)}"), soft_wrap=True)

    def probed(self, lost: int, gap_ms: float) -> None:
        self._progress.probe(lost, gap_ms)

    def finish(self, report: Report) -> None:
        self._progress.finish(report.status)


class Line:
    """What a long command is at: a line on standard error for each thing, and on a terminal how far that is."""

    def __init__(self) -> None:
        self._status = output.standard_error().status("")
        self._what = ""

    def __enter__(self) -> "Line":
        self._status.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._status.stop()

    def begin(self, what: str) -> None:
        self._what = what
        self._status.console.print(Text(what))
        self._status.update("")

    def tell(self, how_far: str) -> None:
        self._status.update(Text(f"{self._what}: {how_far}"))
