"""`vferry relay release`: takes off a relay what no guest has any more."""

import asyncio
import sys

import click

from vferry.cli import choices, show
from vferry.controller import relay_release
from vferry.controller.state import find_state
from vferry.model.problem import Exit


@click.command(name="release")
@click.argument("host")
@click.argument("mac")
@click.option("--dry-run", is_flag=True, help="Print the steps, and change nothing.")
def command(host: str, mac: str, dry_run: bool) -> None:  # noqa: FBT001
    """Take the port for MAC off the relay of HOST, where no guest has that NIC any more, and give its VF back.

    Such a port is left where a guest was undefined, or its NIC taken out of its definition. One that a guest has is
    refused: `vferry guest nic` takes that off. What fails is undone.

    \b
    Example: vferry relay release host1 52:54:00:aa:00:0b --dry-run
             vferry relay release host1 52:54:00:aa:00:0b
    """
    state, mac = find_state(), choices.mac(mac, "MAC")
    found = asyncio.run(relay_release.assess(state, host, mac))
    show.findings(found.findings, err=True)
    if found.errors:
        sys.exit(Exit.REFUSED)
    if dry_run:
        show.host_steps(found.steps)
        return
    with show.Line() as line:
        asyncio.run(relay_release.release(state, host, found, line.begin))
    if found.port is not None:
        click.echo(f"{mac} of {found.port.guest} is off the relay of {host}")
