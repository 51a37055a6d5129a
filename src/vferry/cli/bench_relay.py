"""`vferry bench relay`: how fast a relay forwards, beside the kernel."""

import json
import sys
from pathlib import Path

import click

from vferry.cli import show
from vferry.cli.choices import chosen, numbers, tell_left_out
from vferry.model.problem import Problem
from vferry.trial.relay_paths import WAYS, missing

LEAST, MOST = 64, 1500


@click.command("relay")
@click.option("--runs", type=click.IntRange(1, 100), default=5, show_default=True, help="How often each.")
@click.option("--paths", default=",".join(WAYS), show_default=True, help="Which, in which order, by commas.")
@click.option("--sizes", default="64,512,1500", show_default=True, metavar="BYTES", help="Of packets, by commas.")
@click.option("--seconds", type=click.FloatRange(0.5, 60), default=5, show_default=True, help="How long each.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("bench-results/relay.json"),
    show_default=True,
)
@click.option("--fresh", is_flag=True, help="Forget the rows of an earlier one.")
@click.option("--json", "as_json", is_flag=True, help="Print all rows and the summary as JSON.")
def command(
    runs: int,
    paths: str,
    sizes: str,
    seconds: float,
    results: Path,
    fresh: bool,  # noqa: FBT001 - click passes options by name
    as_json: bool,  # noqa: FBT001
) -> None:
    """Measure what a relay forwards on this machine, and what the kernel does, without guests and VFs.

    Two virtio NICs of DPDK's testpmd send each other's packets back, through an Open vSwitch with DPDK
    of its own, set up as a relay's, or through vhost-net and a bridge, or an Open vSwitch, of the
    kernel; with 1,000 ACLs, conntrack and a tunnel where a path is called so (+rules). Round trips are
    then those of single packets. Needs root, two CPUs that do nothing else, dpdk-dev and
    openvswitch-switch-dpdk. Where something is missing for a path, it is left out, and that is said.

    Writes --results, which a bench that was cut short goes on from. Rows in it of another kernel,
    --seconds or vferry stay there, and are not compared.

    \b
    Example: vferry bench relay
             vferry bench relay --paths direct,bridge --sizes 64 --runs 3
             vferry bench relay --paths switched,switched+rules,openvswitch,openvswitch+rules
    """
    from vferry.report.bench_relay import render, summary
    from vferry.report.text import terminal
    from vferry.trial.relay_bench import RelayCase, RelaySettings, environment, measure
    from vferry.trial.results import Results

    named, wanted = chosen(paths, WAYS, "--paths"), numbers(sizes, "--sizes")
    if not all(LEAST <= size <= MOST for size in wanted):
        raise click.BadParameter(f"give numbers from {LEAST} to {MOST}", param_hint="--sizes")
    possible = _possible(named)
    if fresh:
        results.unlink(missing_ok=True)
    results.parent.mkdir(parents=True, exist_ok=True)
    kept = Results(results, RelayCase.of)
    with show.Line() as line:
        measure(RelaySettings(possible, wanted, runs, seconds), kept, line.begin)
    rows = kept.of(lambda _: environment(seconds))
    tell_left_out(len(kept.rows) - len(rows), results)
    if as_json:
        sys.stdout.write(json.dumps({"rows": rows, "summary": summary(rows)}, indent=2) + "\n")
    else:
        terminal().print(render(summary(rows)))


def _possible(names: list[str]) -> list[str]:
    """The paths for which nothing is missing; the others are named. Problem ``bench-nothing``."""
    why = {name: missing(name) for name in names}
    for name, what in why.items():
        if what:
            click.echo(f"left out: {name}: {what}", err=True)
    possible = [name for name, what in why.items() if not what]
    if not possible:
        raise Problem("bench-nothing", "Nothing can be measured here", next(iter(why.values())))
    return possible
