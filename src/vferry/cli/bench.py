"""`vferry bench …`: figures that anyone can take again."""

import asyncio
import json
import sys
from pathlib import Path

import click

from vferry.cli import show
from vferry.controller.bench import Case, Results, measure
from vferry.controller.state import find_state
from vferry.plan.plan import NetworkMode


@click.group("bench")
def command() -> None:
    """Take the figures that the documentation names.

    \b
    Example: vferry bench network --runs 5
    """


@command.command("network")
@click.option("--runs", type=click.IntRange(1, 100), default=5, show_default=True, help="How often each mode.")
@click.option(
    "--modes", default="virtio,switch,detach", show_default=True, help="Which modes, in which order, by commas."
)
@click.option("--guest", default="guest1", show_default=True, help="The guest with a VF.")
@click.option("--virtio-guest", default="guest2", show_default=True, help="The guest without one.")
@click.option("--failover-guest", default="failover1", show_default=True, help="The guest with a teaming pair.")
@click.option("--results", type=click.Path(path_type=Path, dir_okay=False), default=Path("bench/network.json"))
@click.option("--fresh", is_flag=True, help="Forget the runs of an earlier one that was cut short.")
@click.option("--json", "as_json", is_flag=True, help="Print all runs, the summary and the latency as JSON.")
def network(
    runs: int,
    modes: str,
    guest: str,
    virtio_guest: str,
    failover_guest: str,
    results: Path,
    fresh: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Measure the interruption of each network mode, in turn, between the two registered hosts.

    Mode switch runs once more at the end, without probes, to show how fast the guest's disk and agent
    answer while NICs are plugged and unplugged; that run does not count in the comparison.

    Writes --results, which a run that was cut short goes on from, and a picture beside it.

    \b
    Example: vferry bench network --runs 5
             vferry bench network --runs 5 --modes virtio,switch,failover
    """
    # Drawing takes most of a second to import.
    from vferry.report import bench_latency
    from vferry.report.bench import render, summary
    from vferry.report.bench_picture import write_bench
    from vferry.report.text import terminal

    if fresh:
        results.unlink(missing_ok=True)
    results.parent.mkdir(parents=True, exist_ok=True)
    kept = Results(results)
    asyncio.run(
        measure(
            find_state(),
            _cases(modes, guest, {NetworkMode.VIRTIO: virtio_guest, NetworkMode.FAILOVER: failover_guest}),
            runs,
            kept,
            show.Stage,
            _tell,
        )
    )
    write_bench(kept.runs, results.with_suffix(".png"))
    result = summary(kept.runs)
    if as_json:
        whole = {"runs": kept.runs, "summary": result, "latency": kept.latency}
        sys.stdout.write(json.dumps(whole, indent=2) + "\n")
        return
    console = terminal()
    console.print(render(result))
    if kept.latency:
        console.print()
        console.print(bench_latency.render(kept.latency))


def _cases(modes: str, guest: str, others: dict[NetworkMode, str]) -> tuple[Case, ...]:
    names = [name.strip() for name in modes.split(",")]
    unknown = sorted(set(names) - set(NetworkMode))
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}: choose among {', '.join(NetworkMode)}", param_hint="--modes")
    return tuple(Case(name=mode.value, guest=others.get(mode, guest), mode=mode) for mode in map(NetworkMode, names))


def _tell(line: str) -> None:
    click.echo(line, err=True)
