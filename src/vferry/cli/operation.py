"""`vferry operation …`: what runs, how it went, and taking it over."""

import asyncio
import sys
from pathlib import Path

import click
from rich.table import Table

from vferry.cli import following, output, show
from vferry.cli.rate import per_second, rate_or_none
from vferry.controller import news, nic_driving, operations
from vferry.controller.operations import INTERRUPTED, RUNNING, OperationFolder, OperationState
from vferry.controller.recovery import recover
from vferry.controller.state import State, find_state
from vferry.model.problem import Exit, Problem
from vferry.model.report import Kind, Phase, Report
from vferry.report.text import print_report


@click.group("operation")
def command() -> None:
    """List, follow, abort and recover migrations; list, follow and recover moves of NICs (vferry guest nic).

    \b
    Example: vferry operation list
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_(as_json: bool) -> None:  # noqa: FBT001
    """List all operations, the oldest first.

    \b
    Example: vferry operation list
    """
    rows = [folder.state() for folder in operations.every(find_state())]
    if as_json:
        names = (
            "operation",
            "guest",
            "source",
            "destination",
            "status",
            "phase",
            "started",
            "kind",
            "mac",
            "to",
            "step",
        )
        output.json([{name: getattr(row, name) for name in names} for row in rows])
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("operation", "guest", "from", "to", "status", "phase", "started", "what"):
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(
            row.operation, row.guest, row.source, row.destination, row.status, row.phase, row.started, _what(row)
        )
    if rows:
        output.tables(table)
    else:
        click.echo("No operation yet: vferry migrate GUEST HOST")


@command.command("show")
@click.argument("operation")
@show.file_options
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def show_(
    operation: str,
    report_file: Path | None,
    page_file: Path | None,
    picture_file: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Show the report of OPERATION, or how it stands while there is none.

    \b
    Example: vferry operation show op-1a2b3c4d --json
    """
    folder = operations.find(find_state(), operation)
    state, report = folder.state(), folder.report()
    if report is None or state.status in (RUNNING, INTERRUPTED):
        if as_json:
            output.json(state)
        else:
            click.echo(_standing(state) + _copied(folder, state))
        return
    show.write(report, (report_file, page_file, picture_file))
    output.json(report) if as_json else print_report(report)


def _what(state: OperationState) -> str:
    return f"{state.mac} to {state.to}" if state.kind is Kind.NIC else state.kind


def _standing(state: OperationState) -> str:
    """How an operation stands that has not ended, or was left."""
    hosts = f"on {state.source}, {_what(state)}" if state.kind is Kind.NIC else f"{state.source} → {state.destination}"
    at = f": {state.step}" if state.step else ""
    return f"{state.guest} {hosts}: {state.status}, in phase {state.phase}{at} (since {state.started})"


def _copied(folder: OperationFolder, state: OperationState) -> str:
    """How far a migration's copy is that runs; not in percent, which with each pass would begin anew."""
    copy = news.heard(folder).migration
    if copy is None or not copy.total_bytes or state.status != RUNNING or state.phase is not Phase.COPY:
        return ""
    figures = show.copy_figures(copy)
    return ": " + ", ".join(figures.course() + figures.speed())


@command.command("follow")
@click.argument("operation")
def follow(operation: str) -> None:
    """Follow OPERATION to its end, print its report and exit as it does.

    Of a migration it shows how far the copy is and what the probes see, as `vferry migrate` does.

    \b
    Example: vferry operation follow op-1a2b3c4d
    """
    folder = operations.find(find_state(), operation)
    state = following.to_the_end(folder)
    report = folder.report()
    if state.status == INTERRUPTED or report is None:
        raise _interrupted(folder)
    print_report(report)
    sys.exit(show.exit_of(report))


@command.command("abort")
@click.argument("operation")
def abort(operation: str) -> None:
    """Ask OPERATION, a migration, to end: what it did is undone, unless its guest has resumed at the destination.

    \b
    Example: vferry operation abort op-1a2b3c4d
    """
    folder, state = _running(operation)
    folder.ask_abort()
    click.echo(f"Abort asked for, in phase {state.phase}. Follow it: vferry operation follow {operation}")


@command.command("set")
@click.argument("operation")
@click.option(
    "--bandwidth", type=rate_or_none, metavar="RATE|none", required=True, help="Bytes per second that the copy may use."
)
def set_(operation: str, bandwidth: int) -> None:
    """Change what OPERATION, a migration, may use while it runs.

    \b
    Example: vferry operation set op-1a2b3c4d --bandwidth 50M
             vferry operation set op-1a2b3c4d --bandwidth none
    """
    folder, state = _running(operation)
    folder.ask_bandwidth(bandwidth)
    limit = per_second(bandwidth)
    click.echo(f"Asked for, in phase {state.phase}: {limit} for the copy.")


@command.command("recover")
@click.argument("operation", required=False)
@click.option("--guest-is-at", metavar="HOST", help="Your word on which host keeps the guest, where none can tell.")
@click.option("--json", "as_json", is_flag=True, help="Print the reports as a JSON list.")
def recover_(operation: str | None, guest_is_at: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Finish or undo OPERATION, whose controller died or which needs repair; without one, all of these.

    A migration's end is decided by where the guest runs, as the hosts say it now; where it is off, by where it is
    defined. The move of a NIC goes on from where it was, there or back. One that cannot be recovered is named, and does
    not keep the others from it.

    \b
    Example: vferry operation recover
             vferry operation recover op-1a2b3c4d --guest-is-at host2
    """
    state = find_state()
    folders = [operations.find(state, operation)] if operation else operations.to_recover(state)
    if not folders:
        click.echo("Nothing to recover.", err=as_json)
    reports, codes = [], []
    for folder in folders:
        try:
            report = asyncio.run(_recover(state, folder, guest_is_at))
        except Problem as problem:
            if len(folders) == 1:
                raise
            click.echo(f"vferry: {folder.name}: {problem}", err=True)
            codes.append(problem.exit)
            continue
        reports.append(report)
        codes.append(show.exit_of(report))
        if not as_json:
            print_report(report)
    if as_json:
        output.json(reports)
    sys.exit(max(codes, key=_gravity, default=Exit.DONE))


def _gravity(code: Exit) -> int:
    """That something was undone is what a recovery may well do; that an operator is needed is not."""
    return [Exit.DONE, Exit.ABORTED, Exit.UNDONE, Exit.REFUSED, Exit.USAGE, Exit.OPERATOR].index(code)


async def _recover(state: State, folder: OperationFolder, guest_is_at: str | None) -> Report:
    if folder.stored().kind is Kind.NIC:
        if guest_is_at is not None:
            raise _no_migration(folder, "its guest is on one host only")
        with folder.driven(), show.Line() as line:
            return await nic_driving.recover(state, folder, line.begin)
    with folder.driven(), show.Stage(folder.plan()) as stage:
        report = await recover(state, folder, stage, guest_is_at)
        stage.finish(report)
    return report


def _no_migration(folder: OperationFolder, why: str) -> Problem:
    return Problem("no-migration", f"Operation {folder.name} moves a NIC, and no guest: {why}")


def _running(operation: str) -> tuple[OperationFolder, OperationState]:
    """A migration that runs."""
    folder = operations.find(find_state(), operation)
    state = folder.state()
    if state.kind is Kind.NIC:
        raise _no_migration(folder, "it goes to its end, or is undone")
    if state.status == INTERRUPTED:
        raise _interrupted(folder)
    if state.status != RUNNING:
        raise Problem("operation-ended", f"Operation {operation} has ended already: {state.status}")
    return folder, state


def _interrupted(folder: OperationFolder) -> Problem:
    return Problem(
        "operation-interrupted",
        f"Nothing drives operation {folder.name} any more",
        f"Take it up: vferry operation recover {folder.name}",
        exit=Exit.OPERATOR,
    )
