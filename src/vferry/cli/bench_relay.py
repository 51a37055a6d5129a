"""`vferry bench relay`: how fast a relay forwards, beside the kernel."""

from pathlib import Path

import click

from vferry.cli.bench_paths import compare, octets, options
from vferry.cli.choices import chosen
from vferry.model.problem import Problem
from vferry.trial.relay_paths import WAYS, missing


@click.command("relay")
@options(",".join(WAYS), 5, "relay.json")
def command(*, runs: int, paths: str, sizes: str, seconds: float, results: Path, fresh: bool, as_json: bool) -> None:
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
    from vferry.trial.relay_bench import RelaySettings, environment, measure

    named, lengths = chosen(paths, WAYS, "--paths"), octets(sizes)
    settings = RelaySettings(_possible(named), lengths, runs, seconds)
    compare(settings, environment(seconds), measure, results, fresh=fresh, as_json=as_json)


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
