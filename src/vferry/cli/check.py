"""`vferry check`: whether a guest can migrate to a host, and how."""

import asyncio
import sys

import click

from vferry.cli import output, show
from vferry.cli.migrate import MODES, transfer_options
from vferry.controller.migrate import Request, prepare
from vferry.controller.state import find_state
from vferry.model.compression import Codec
from vferry.model.problem import Exit
from vferry.plan.plan import NetworkMode


@click.command("check")
@click.argument("guest")
@click.argument("host")
@click.option("--network", "mode", type=click.Choice(MODES), default="auto", help="Network mode.")
@transfer_options
@click.option("--accept-interruption", is_flag=True, help="Allow modes that leave it to the guest's own reaction.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(
    guest: str,
    host: str,
    mode: str,
    policy: str,
    codec: str | None,
    streams: int | None,
    delta_memory: int | None,
    accept_interruption: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Tell whether GUEST can migrate to HOST, and what stands in the way. Changes nothing.

    \b
    Example: vferry check guest1 host2
             vferry check guest1 host2 --codec zstd
    """
    request = Request(
        guest=guest,
        destination=host,
        mode=None if mode == "auto" else NetworkMode(mode),
        policy=policy,
        codec=Codec(codec) if codec else None,
        streams=streams,
        delta_memory=delta_memory,
        accept_interruption=accept_interruption,
    )
    prepared = asyncio.run(prepare(find_state(), request))
    plan = prepared.plan
    if as_json:
        mode_chosen = plan.mode if plan else None
        output.json({"possible": plan is not None, "network_mode": mode_chosen, "findings": prepared.findings})
    else:
        show.findings(prepared.findings)
        if plan:
            click.echo(f"✓ {guest} can migrate from {plan.source} to {host}: mode {plan.mode.value}, {plan.reason}.")
    if plan is None:
        sys.exit(Exit.REFUSED)
