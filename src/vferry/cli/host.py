"""`vferry host`: adds, lists, shows, limits and removes hosts."""

import asyncio

import click

from vferry.cli import host_show, output
from vferry.cli import show as show_lines
from vferry.cli.rate import per_second, rate_or_configured
from vferry.controller.hosts import add_host, limit_host, list_hosts, open_host, remove_host
from vferry.controller.hosts import certify_qemu as certify
from vferry.host.api import TakeInventory
from vferry.model.host import Inventory
from vferry.plan import relay_cpus

as_json = click.option("--json", "json_output", is_flag=True, help="Print JSON.")


@click.group()
def command() -> None:
    """Add, list, show and limit hosts.

    \b
    Example: vferry host add host1 ssh://root@host1
    """


@command.command()
@click.argument("name")
@click.argument("uri")
@click.option("--probe-from", metavar="netns:NAME", help="Send the probes of its guests from a network namespace.")
def add(name: str, uri: str, probe_from: str | None) -> None:
    """Register a host by its agent's URI, and give it a certificate.

    NAME is what the host's own /etc/vferry/agent.toml calls it. URI is unix:///PATH, ssh://root@HOST[:PORT] or
    https://HOST:PORT; the first time not https, which needs the certificate. Adding a host again renews it.

    \b
    Example: vferry host add host1 ssh://root@192.0.2.1
    """
    inventory = asyncio.run(add_host(name, uri, probe_from))
    vfs = sum(len(pf.vfs) for pf in inventory.pfs)
    click.echo(f"Added {name}: {len(inventory.pfs)} PFs with {vfs} VFs, {len(inventory.guests)} guests")


@command.command(name="list")
@as_json
def list_(json_output: bool) -> None:  # noqa: FBT001
    """List the registered hosts.

    \b
    Example: vferry host list --json
    """
    records = list_hosts()
    if json_output:
        output.json(records)
        return
    table = output.table("NAME", "URI", "PROBE FROM")
    for record in records:
        table.add_row(record.name, record.uri, record.probe_from or "-")
    output.tables(table)


@command.command()
@click.argument("name")
@as_json
def show(name: str, json_output: bool) -> None:  # noqa: FBT001
    """Show what a host has: functions, networks, guests, claims.

    \b
    Example: vferry host show host1
    """
    inventory = asyncio.run(_inventory(name))
    if json_output:
        output.json(inventory)
        return
    output.tables(*host_show.tables(inventory))
    show_lines.findings(tuple(relay_cpus.about(inventory)), err=True)


@command.command(name="set")
@click.argument("name")
@click.option(
    "--bandwidth",
    metavar="RATE|none|configured",
    required=True,
    callback=rate_or_configured,
    help="Bytes per second for all migrations that leave the host.",
)
def set_(name: str, bandwidth: int | None) -> None:
    """Limit what all migrations that leave a host send together, those that run at once.

    It wins over bandwidth in the host's own /etc/vferry/agent.toml, also after a restart, until it is set to
    `configured`: then what is written there holds again.

    \b
    Example: vferry host set host1 --bandwidth 1G
             vferry host set host1 --bandwidth none
             vferry host set host1 --bandwidth configured
    """
    asyncio.run(limit_host(name, bandwidth))
    limit = "as configured" if bandwidth is None else per_second(bandwidth)
    click.echo(f"{name}: {limit} for all migrations that leave it")


@command.command()
@click.argument("name")
def certify_qemu(name: str) -> None:
    """Give QEMU on a host a certificate, so that it may send memory by itself (vferry migrate --direct).

    It is put where libvirt has QEMU find it (/etc/pki/qemu, or what qemu.conf says), and is good for two years; doing
    it again renews it. It is of an authority of its own, which only QEMUs trust. Where the folder has certificates of
    another authority, these stay, and are used as they are.

    \b
    Example: vferry host certify-qemu host1
    """
    asyncio.run(certify(name))
    click.echo(f"{name}: QEMU has a new certificate")


@command.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget a host. Nothing changes on the host itself.

    \b
    Example: vferry host remove host1
    """
    asyncio.run(remove_host(name))
    click.echo(f"Removed {name}")


async def _inventory(name: str) -> Inventory:
    async with open_host(name) as host:
        return await host.call(TakeInventory(), timeout_s=60.0)
