"""`vferry migrate`: the main job."""

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from vferry.cli import output, show
from vferry.cli.rate import rate
from vferry.cli.stalling import actions
from vferry.controller import migrate
from vferry.controller.migrate import Prepared, Request
from vferry.controller.operations import OperationFolder
from vferry.controller.state import State, find_state
from vferry.model.compression import CODECS, DELTA_MIB, MOST_DELTA_MIB, MOST_STREAMS, Codec
from vferry.model.problem import Exit
from vferry.model.report import Report
from vferry.plan.plan import NetworkMode, Plan
from vferry.plan.transfer import METHODS
from vferry.probe.tcp import PORT_MAX, PORT_MIN
from vferry.report.text import print_report

MODES = ["auto", *(mode.value for mode in NetworkMode)]
POLICIES = ["auto", *METHODS]
WISHES = (
    click.option(
        "--network", "mode", type=click.Choice(MODES), default="auto", show_default=True, help="Network mode."
    ),
    click.option(
        "--transfer",
        "policy",
        type=click.Choice(POLICIES),
        default="auto",
        show_default=True,
        help="How QEMU sends the memory: as one stream, or over multifd's channels, as is best for compressing; "
        "or compressed by QEMU itself, instead of --codec.",
    ),
    click.option(
        "--codec",
        type=click.Choice(CODECS),
        help="Compress the memory on its way; auto follows the link's speed.  [default: none, or the configuration's]",
    ),
    click.option(
        "--streams",
        type=click.IntRange(1, MOST_STREAMS),
        help="Send it over so many.  [default: 2 with multifd, or the configuration's]",
    ),
    click.option(
        "--delta-memory",
        type=click.IntRange(0, MOST_DELTA_MIB),
        metavar="MIB",
        help="Memory on each host for copies of pages, so that one sent again goes as its difference.  "
        f"[default: {DELTA_MIB}, or the configuration's; never more than the guest has]",
    ),
    click.option(
        "--resident/--no-resident",
        default=None,
        help="With a codec: do not send pages that guests at the destination have, too; these guests' memory is read "
        "there for that.  [default: no, or the configuration's]",
    ),
    click.option("--deadline", "deadline_s", type=click.FloatRange(1), help="Seconds that the copy may take."),
    click.option("--bandwidth", type=rate, metavar="RATE", help="Bytes per second before compression, such as 50M."),
    click.option(
        "--when-stalled",
        type=actions,
        metavar="ACTIONS",
        help="What may be done, in turn, if the copy stalls, such as 'throttle, pause 1, pause 5, abort'.  "
        "[default: none, or the configuration's]",
    ),
    click.option(
        "--max-pause",
        "max_pause_s",
        type=click.FloatRange(0, 30, min_open=True),
        metavar="SECONDS",
        help="How long the guest may be paused for the last of its memory, if the copy stalls otherwise: "
        "short for --when-stalled 'pause SECONDS'.  [default: 0.3, or the configuration's]",
    ),
    click.option(
        "--throttle/--no-throttle",
        default=None,
        help="Let QEMU slow the guest's processors down if it writes faster than can be copied: "
        "short for --when-stalled throttle.  [default: no, or the configuration's]",
    ),
    click.option(
        "--reclaim-free/--no-reclaim-free",
        default=None,
        help="Before the copy, have the guest's balloon take what the guest has free, and give it back at once: that "
        "is not copied then.  [default: no, or the configuration's]",
    ),
    click.option(
        "--direct/--no-direct",
        default=None,
        help="Where the gateways would not compress, let QEMU send the memory by itself, over its own TLS; both hosts "
        "need certificates for that (vferry host certify-qemu).  [default: no, or the configuration's]",
    ),
    click.option(
        "--temporary-bond",
        is_flag=True,
        help="With --network detach: a bond is made in the guest, over the VF and a virtio NIC, and taken away after.",
    ),
    click.option("--accept-interruption", is_flag=True, help="Allow what interrupts a NIC, or leaves it to the guest."),
)

F = TypeVar("F", bound=Callable[..., Any])


def wishes(function: F) -> F:
    """Add the options that say how the guest is to move; `request` takes what they bring."""
    for option in reversed(WISHES):
        function = option(function)
    return function


def request(*, mode: str, codec: str | None, **wished: Any) -> Request:
    """What was asked for."""
    if wished["temporary_bond"] and mode != NetworkMode.DETACH.value:
        raise click.UsageError("--temporary-bond is for --network detach")
    if wished["when_stalled"] is not None and (wished["max_pause_s"], wished["throttle"]) != (None, None):
        raise click.UsageError("--when-stalled says all of it: write --max-pause and --throttle as its actions")
    return Request(mode=None if mode == "auto" else NetworkMode(mode), codec=Codec(codec) if codec else None, **wished)


@click.command("migrate")
@click.argument("guest")
@click.argument("host")
@wishes
@click.option("--dry-run", is_flag=True, help="Print the steps and change nothing.")
@click.option("--detach", is_flag=True, help="Return at once with the operation's id; it goes on by itself.")
@click.option("--probe", "probe_address", metavar="ADDRESS", help="Measure the interruption of this address.")
@click.option(
    "--probe-tcp",
    type=click.IntRange(PORT_MIN, PORT_MAX),
    metavar="PORT",
    help="Watch a TCP connection to this port too, where something echoes what it gets.",
)
@click.option("--no-probe", is_flag=True, help="Do not measure the interruption.")
@show.file_options
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, and nothing else.")
def command(
    guest: str,
    host: str,
    *,
    dry_run: bool,
    detach: bool,
    probe_address: str | None,
    probe_tcp: int | None,
    no_probe: bool,
    report_file: Path | None,
    page_file: Path | None,
    picture_file: Path | None,
    as_json: bool,
    **wished: Any,
) -> None:
    """Migrate GUEST, wherever it runs, to HOST.

    Ends with a report. Exit codes: 0 done, 2 usage, 3 refused by preflight, 4 failed and undone, 5 needs the
    operator, 6 aborted and undone. Ctrl-C asks for an abort, which undoes what was done.

    \b
    Example: vferry migrate guest1 host2
             vferry migrate guest1 host2 --dry-run
             vferry migrate guest1 host2 --codec zstd --streams 4
             vferry migrate guest1 host2 --deadline 120 --when-stalled "pause 1, pause 5"
             vferry migrate guest1 host2 --probe-tcp 7
    """
    if no_probe and (probe_address or probe_tcp):
        given = "--probe" if probe_address else "--probe-tcp"
        raise click.UsageError(f"{given} and --no-probe contradict each other")
    state = find_state()
    wished |= {"probe_address": probe_address, "probe_tcp": probe_tcp, "measured": not no_probe}
    asked = request(guest=guest, destination=host, **wished)
    prepared = asyncio.run(migrate.prepare(state, asked, estimated=dry_run))
    if not as_json:
        show.findings(prepared.findings, err=not dry_run)
    if prepared.plan is None:
        _refuse(prepared, as_json=as_json)
    elif dry_run:
        output.json(prepared.plan) if as_json else show.steps(prepared.plan)
    else:
        _run(state, prepared, prepared.plan, (report_file, page_file, picture_file), detach=detach, as_json=as_json)


def _refuse(prepared: Prepared, *, as_json: bool) -> None:
    report, problem = migrate.refuse(prepared)
    if not as_json:
        click.echo(f"vferry: refused, nothing was changed: {problem.message}.", err=True)
    else:
        output.json(report)
    sys.exit(Exit.REFUSED)


def _run(state: State, prepared: Prepared, plan: Plan, files: show.Files, *, detach: bool, as_json: bool) -> None:
    with migrate.begun(state, prepared, plan) as folder:
        report = None if detach else asyncio.run(_watched(state, folder, plan))
    if report is None:
        asyncio.run(migrate.leave_to_itself(folder))
        output.json(folder.state()) if as_json else click.echo(folder.name)
        return
    output.json(report) if as_json else print_report(report)
    show.write(report, files)
    sys.exit(show.exit_of(report))


async def _watched(state: State, folder: OperationFolder, plan: Plan) -> Report:
    """Drives the operation with its progress on the terminal; the first Ctrl-C asks for an abort."""
    loop = asyncio.get_running_loop()
    with show.Stage(plan) as stage:
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, _ask_abort, folder, signum)
        report = await migrate.carry_out(state, folder, stage)
        stage.finish(report)
    return report


def _ask_abort(folder: OperationFolder, signum: int) -> None:
    if folder.abort_asked():  # asked twice: leave, and let `operation recover` take it up
        click.echo(f"Left as it is; take it up with: vferry operation recover {folder.name}", err=True)
        signal.signal(signum, signal.SIG_DFL)
        signal.raise_signal(signum)
    folder.ask_abort()
    click.echo("Aborting: what was done is undone, unless the guest has already resumed at the destination…", err=True)
