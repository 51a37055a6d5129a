"""`vferry bench …`: figures that anyone can take again."""

import asyncio
import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from vferry.cli import bench_relay, show
from vferry.cli.choices import chosen, numbers, tell_left_out
from vferry.cli.signals import ended_by_signals
from vferry.controller.bench import Case, Results, measure, watched
from vferry.controller.configuration import read_controller_configuration
from vferry.controller.state import find_state
from vferry.model.problem import Exit, Problem
from vferry.plan.plan import NetworkMode
from vferry.probe.tcp import PORT_MAX, PORT_MIN
from vferry.trial.modes import MODES, USUAL
from vferry.trial.results import code

RESULTS = Path("bench-results")
"""Where results go that are not said to go elsewhere: what the repository has of them in bench/ are copies."""
OF_A_VF = ""
GUESTS = {OF_A_VF: "guest1", "virtio": "guest2", "failover": "failover1", "macvtap": "macvtap1", "relay": "relay1"}
"""Which guest of the lab serves which mode."""


@click.group("bench")
def command() -> None:
    """Take the figures that the documentation names.

    \b
    Example: vferry bench network --runs 5
    """


command.add_command(bench_relay.command)


@command.command("network")
@click.option("--runs", type=click.IntRange(1, 100), default=5, show_default=True, help="How often each mode.")
@click.option(
    "--modes", default="virtio,switch,detach", show_default=True, help="Which modes, in which order, by commas."
)
@click.option(
    "--guest",
    "guests",
    multiple=True,
    metavar="[MODE=]GUEST",
    help="The guest for a mode, again for another; without MODE, for those of a VF.  [default: the lab's]",
)
@click.option(
    "--probe-tcp",
    type=click.IntRange(PORT_MIN, PORT_MAX),
    metavar="PORT",
    help="Watch a TCP connection to this port of the guest too, where something echoes.",
)
@click.option(
    "--results", type=click.Path(path_type=Path, dir_okay=False), default=RESULTS / "network.json", show_default=True
)
@click.option("--fresh", is_flag=True, help="Forget the runs of an earlier one that was cut short.")
@click.option("--json", "as_json", is_flag=True, help="Print all runs, the summary and the latency as JSON.")
def network(
    runs: int,
    modes: str,
    guests: tuple[str, ...],
    probe_tcp: int | None,
    results: Path,
    fresh: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Measure the interruption of each network mode, in turn, between the two registered hosts.

    Mode switch runs once more at the end, without probes, to show how fast the guest's disk and agent
    answer while NICs are plugged and unplugged; that run does not count in the comparison.

    Writes --results, which a run that was cut short goes on from, and a picture beside it. Runs in it of
    other guests or settings, or of another vferry, stay there, and are not compared.

    \b
    Example: vferry bench network --runs 5
             vferry bench network --runs 5 --modes virtio,switch,failover,macvtap
             vferry bench network --guest web1 --guest virtio=web2 --probe-tcp 7
    """
    # Drawing takes most of a second to import.
    from vferry.report import bench_latency
    from vferry.report.bench import render, summary
    from vferry.report.bench_picture import write_bench
    from vferry.report.text import terminal

    if fresh:
        results.unlink(missing_ok=True)
    results.parent.mkdir(parents=True, exist_ok=True)
    kept, state = Results(results), find_state()
    configuration = read_controller_configuration(state)
    cases = tuple(
        replace(case, probe_tcp=probe_tcp, configuration=configuration, code=code()) for case in _cases(modes, guests)
    )
    asyncio.run(measure(state, cases, runs, kept, show.Stage, _tell))
    compared, switch = kept.of(cases), watched(cases)
    latency = kept.latency(switch) if switch else None
    tell_left_out(len(kept.runs) - len(compared), results)
    write_bench(compared, results.with_suffix(".png"))
    result = summary(compared)
    if as_json:
        whole = {"runs": compared, "summary": result, "latency": latency}
        sys.stdout.write(json.dumps(whole, indent=2) + "\n")
        return
    console = terminal()
    console.print(render(result))
    if latency:
        console.print()
        console.print(bench_latency.render(latency))


@command.command("transfer")
@click.option("--runs", type=click.IntRange(1, 100), default=3, show_default=True, help="How often each.")
@click.option("--modes", default=",".join(USUAL), show_default=True, help="Which, in which order, by commas.")
@click.option(
    "--link",
    "links",
    default="400",
    show_default=True,
    metavar="MBIT",
    help="Its speed, several by commas; 0: not shaped.",
)
@click.option(
    "--dirty",
    "rates",
    default="0,5000,15000,40000",
    show_default=True,
    metavar="RATE",
    help="Pages the guest changes a second, several by commas; 0: idle.",
)
@click.option("--memory", type=click.IntRange(64), default=1024, show_default=True, metavar="MIB", help="The guest's.")
@click.option(
    "--used",
    type=click.IntRange(0),
    default=0,
    metavar="MIB",
    help="How much of the memory has content.  [default: five eighths]",
)
@click.option("--tls", is_flag=True, help="QEMU's TLS and the gateways', instead of plaintext on both.")
@click.option(
    "--deadline",
    type=click.FloatRange(1),
    metavar="SECONDS",
    help="Give a migration up after so long; else after what four passes of the memory take, at least 60.",
)
@click.option("--qemu", default="qemu-system-x86_64", show_default=True, metavar="COMMAND", help="What starts QEMU.")
@click.option(
    "--content",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path("/usr"),
    show_default=True,
    help="The folder whose programs fill the guest's memory.",
)
@click.option("--again", is_flag=True, help="Take them again where they run out, displaced: no page is like another.")
@click.option(
    "--within",
    type=click.FloatRange(1),
    metavar="SECONDS",
    help="Tell and draw, too, which share of the migrations ended within so long, by mode and link.",
)
@click.option(
    "--results", type=click.Path(path_type=Path, dir_okay=False), default=RESULTS / "transfer.json", show_default=True
)
@click.option("--fresh", is_flag=True, help="Forget the rows of an earlier one.")
@click.option("--json", "as_json", is_flag=True, help="Print all rows and the summary as JSON.")
def transfer(*, runs: int, memory: int, results: Path, fresh: bool, as_json: bool, **options: Any) -> None:
    """Measure how QEMU's modes and the gateway move a guest's memory, over a shaped link.

    Needs root and QEMU, no hosts and no lab. Each migration has a new guest; after it, the memory at
    both ends is compared byte for byte.

    Writes --results, which a bench that was cut short goes on from, and a picture beside it; with --within
    a second one. Rows in it of another QEMU, --deadline or vferry stay there, and are not compared.

    \b
    Example: vferry bench transfer --link 400 --dirty 0,15000 --modes plain,multifd+zstd,gateway --runs 3
             vferry bench transfer --link 50,100,200,400,1000 --runs 1 --deadline 60 --within 60 \\
               --results bench-results/success.json
             vferry bench transfer --memory 8192 --used 6144 --again --dirty 0 --runs 1 \\
               --results bench-results/large.json
    """
    from vferry.report import bench_success
    from vferry.report.bench_success_picture import write_success
    from vferry.report.bench_transfer import render, summary
    from vferry.report.bench_transfer_picture import write_bench
    from vferry.report.text import terminal
    from vferry.trial.bench import Settings, environment, measure
    from vferry.trial.results import Case as TransferCase
    from vferry.trial.results import Results

    if fresh:
        results.unlink(missing_ok=True)
    results.parent.mkdir(parents=True, exist_ok=True)
    kept = Results(results, TransferCase.of)
    settings = Settings(
        qemu=shlex.split(options["qemu"]),
        modes=chosen(options["modes"], MODES, "--modes"),
        links=numbers(options["links"], "--link"),
        rates=numbers(options["rates"], "--dirty"),
        runs=runs,
        memory=memory,
        tls=options["tls"],
        content=options["content"],
        deadline=options["deadline"],
        used=options["used"],
        again=options["again"],
    )
    now = environment(settings)
    with ended_by_signals(), show.Line() as line:
        measure(settings, kept, now, line.begin, line.tell)
    rows = kept.of(now)
    tell_left_out(len(kept.rows) - len(rows), results)
    write_bench(rows, results.with_suffix(".png"))
    result = summary(rows)
    ended = bench_success.success(rows, options["within"]) if options["within"] else []
    if ended:
        write_success(ended, results.with_name(f"{results.stem}-within.png"))
    if as_json:
        sys.stdout.write(json.dumps({"rows": rows, "summary": result, "within": ended}, indent=2) + "\n")
    else:
        terminal().print(render(result), bench_success.render(ended))
    if any(row.get("differing_pages") for row in rows):
        raise Problem("memory-differs", "A guest's memory did not arrive as it was", exit=Exit.OPERATOR)


def _cases(modes: str, guests: Iterable[str]) -> tuple[Case, ...]:
    """The modes that were chosen, each with its guest."""
    named = {mode or OF_A_VF: guest for mode, _, guest in (words.rpartition("=") for words in guests)}
    unknown = sorted({*named} - {OF_A_VF, *NetworkMode})
    if unknown:
        choose = ", ".join(NetworkMode)
        raise click.BadParameter(f"{', '.join(unknown)}: choose among {choose}", param_hint="--guest")
    using = GUESTS | named
    wanted = map(NetworkMode, chosen(modes, NetworkMode, "--modes"))
    return tuple(Case(name=mode.value, guest=using.get(mode, using[OF_A_VF]), mode=mode) for mode in wanted)


def _tell(line: str) -> None:
    click.echo(line, err=True)
