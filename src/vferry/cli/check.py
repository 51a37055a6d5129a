"""`vferry check`: whether a guest can migrate to a host, and how."""

import asyncio
import sys
from typing import Any

import click

from vferry.cli import output, show
from vferry.cli.migrate import request, wishes
from vferry.controller.migrate import prepare
from vferry.controller.state import find_state
from vferry.model.problem import Exit


@click.command("check")
@click.argument("guest")
@click.argument("host")
@wishes
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(guest: str, host: str, *, as_json: bool, **wished: Any) -> None:
    """Tell whether GUEST can migrate to HOST, by which network modes, and what stands in the way. Changes nothing.

    Measures for some seconds how fast the guest writes to its memory, and estimates the copy.

    \b
    Example: vferry check guest1 host2
             vferry check guest1 host2 --codec zstd
    """
    prepared = asyncio.run(prepare(find_state(), request(guest=guest, destination=host, **wished), estimated=True))
    plan = prepared.plan
    if as_json:
        output.json(
            {
                "possible": plan is not None,
                "network_mode": plan.network_mode if plan else None,
                "findings": prepared.findings,
                "modes": prepared.outlooks(),
                "estimate": prepared.survey.assessment.estimate,
            }
        )
    else:
        show.findings(prepared.findings)
        show.outlooks(prepared.outlooks())
        if plan:
            click.echo(f"✓ {guest} can migrate from {plan.source} to {host}: mode {plan.network_mode}, {plan.reason}.")
    if plan is None:
        sys.exit(Exit.REFUSED)
