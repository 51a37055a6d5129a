"""`vferry lab bench`: what `vferry bench relay` measures, through the lab's VFs, from the peer to a guest."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from vferry.cli.bench_paths import compare, octets, options
from vferry.cli.choices import chosen
from vferry.lab.lab import Lab


@click.command("bench")
@options("direct,switched,bridge,macvtap,vf", 10, "relay-lab.json")
def command(*, runs: int, paths: str, sizes: str, seconds: float, results: Path, fresh: bool, as_json: bool) -> None:
    """Measure the ways to a guest of the lab: a relay's, a bridge, a macvtap, a VF.

    ping sends from the peer, 64 packets on their way, and then one at a time, and the guest's kernel
    answers. guest2 is started anew on each path, and macvtap1 is at the end of one; no other guest runs
    meanwhile. Relay, NIC and guests are as they were afterwards. The lab must be up with --relay, and
    the guest's host have no relay. All in it is emulated: the figures are for comparing.

    Writes --results, which a bench that was cut short goes on from. Rows in it of another kernel,
    --seconds or vferry stay there, and are not compared.

    \b
    Example: vferry lab up --relay && vferry lab bench
             vferry lab bench --paths bridge,macvtap,vf --sizes 64 --runs 3
    """
    # The lab's other commands start faster without.
    from vferry.lab import relays, ways
    from vferry.trial import echoes
    from vferry.trial.relay_bench import Begin, RelayCase, RelaySettings, in_turn
    from vferry.trial.results import Results, code

    settings = RelaySettings(chosen(paths, ways.WAYS, "--paths"), octets(sizes), runs, seconds)
    lab = Lab()
    host = ways.ready(lab, settings.paths)
    ground = echoes.Ground(lab.peer_command, partial(relays.do, lab, host))
    now = {"commit": code(), "kernel": ground.on_host("uname -r").strip(), "seconds": seconds}

    def measure(settings: RelaySettings, kept: Results[RelayCase], begin: Begin) -> None:
        def measured(cases: Sequence[RelayCase]) -> list[tuple[RelayCase, dict[str, Any]]]:
            with ways.laid(lab, host, cases[0].path, begin) as address:
                found = echoes.figures(ground, address, [case.size for case in cases], seconds, begin)
            return list(zip(cases, found, strict=True))

        with ways.alone(lab):
            in_turn(settings, now, kept, begin, measured)

    compare(settings, now, measure, results, fresh=fresh, as_json=as_json)
