"""vferry lab: two SR-IOV hosts without hardware."""

import json
import subprocess
import sys

import click

from vferry.cli import lab_bench
from vferry.lab.lab import Lab
from vferry.lab.outer import say
from vferry.lab.topology import STANDBYS, STARTED, USUAL, Setup, standby_named

OLDER = click.option(
    "--debian12",
    metavar="HOST",
    multiple=True,
    help="A host that runs Debian 12 (Linux 6.1, QEMU 7.2, libvirt 9.0) rather than 13; may be repeated.",
)
STANDBY = click.option(
    "--standby",
    type=click.Choice([each.name for each in STANDBYS]),
    help="The hosts' standby path: a Linux bridge (the usual one), Open vSwitch, a bond of two PFs (active-backup, or "
    "802.3ad for lacp), or macvtaps.",
)
RELAY = click.option(
    "--relay", is_flag=True, help="Hosts that may have a relay: Open vSwitch with DPDK, a second CPU and more memory."
)
ANY = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group()
def command() -> None:
    """Two SR-IOV hosts without hardware, on this machine.

    \b
    Example: vferry lab up && vferry lab shell host1 -- virsh list
    """


command.add_command(lab_bench.command)


@command.command()
@OLDER
@STANDBY
@RELAY
def build(debian12: tuple[str, ...], standby: str | None, *, relay: bool) -> None:
    """Build what the hosts boot from. `lab up` does so too.

    \b
    Example: vferry lab build --debian12 host1
    """
    path = standby_named(standby) if standby else USUAL.standby
    for host in Lab().build(debian12, Setup(path, relay)).hosts.values():
        click.echo(f"{host.base}\n{host.product}")


@command.command()
@click.option("--guests", default=",".join(STARTED), show_default=True, help="Guests to start, by comma.")
@OLDER
@STANDBY
@RELAY
def up(guests: str, debian12: tuple[str, ...], standby: str | None, *, relay: bool) -> None:
    """Boot the hosts, start guests and register the hosts; start what is missing.

    \b
    Examples: vferry lab up --guests guest1,bond1
              vferry lab up --debian12 host1
              vferry lab up --standby ovs
              vferry lab up --relay
    """
    if not Lab().up([name for name in guests.split(",") if name], debian12, standby, relay=relay):
        say("the lab is up already")


@command.command()
def push() -> None:
    """Give the running hosts this clone's vferry and restart their agents; faster than down and up.

    \b
    Example: vferry lab push
    """
    Lab().push()


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(*, as_json: bool) -> None:
    """Show the hosts and the guests that run.

    \b
    Example: vferry lab status --json
    """
    found = Lab().status()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    hosts = [f"{name} ({found['releases'].get(name, 'unknown')})" for name in found["hosts"]]
    click.echo(f"hosts: {', '.join(hosts) or 'none, the lab is down'}")
    if hosts:
        click.echo(f"standby path: {found['standby']}")
        click.echo(f"relay: {'possible' if found['relay'] else 'not possible'}")
    for guest in found["guests"]:
        click.echo(f"{guest['name']:<8} {guest['address']:<12} {guest['host']:<6} {guest['state']}")
    for guest in found["off"]:
        click.echo(f"{guest['name']:<8} {guest['address']:<12} {guest['host']:<6} off")


@command.command(context_settings=ANY)
@click.argument("host")
@click.argument("words", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
def shell(host: str, words: tuple[str, ...]) -> None:
    """Run a command on a host, or a shell without one. Output and exit status are the command's.

    \b
    Example: vferry lab shell host1 -- ip link show enp1s0
    """
    words = words[1:] if words[:1] == ("--",) else words  # click leaves it where it follows an argument
    tty = not words and sys.stdin.isatty()
    sys.exit(subprocess.run(Lab().shell(host, words, tty=tty), check=False).returncode)


@command.command(context_settings=ANY)
@click.argument("words", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
def peer(words: tuple[str, ...]) -> None:
    """Run a command on this machine inside the data network, where the guests' peer is.

    \b
    Example: vferry lab peer -- ping -c 3 10.9.0.11
    """
    sys.exit(subprocess.run(Lab().peer_command(words), check=False).returncode)


@command.command()
@click.argument("name")
@click.option("--console", is_flag=True, help="Print what the guest wrote to its serial console.")
def guest(name: str, *, console: bool) -> None:
    """Start a guest if it is off, wherever it is defined, and say where it is.

    \b
    Example: vferry lab guest bond1
    """
    lab = Lab()
    if console:
        click.echo(lab.guest_console(name), nl=False)
        return
    domain, address = lab.guest(name)
    click.echo(f"{name} is {domain.state} on {domain.host} at {address}")
    click.echo(f"its console: vferry lab guest {name} --console")
    click.echo(f"or a shell on it: vferry lab shell {domain.host} -- virsh console {name}")


@command.command()
def down() -> None:
    """Take the lab down and leave nothing behind but the cache and the logs.

    \b
    Example: vferry lab down
    """
    if not Lab().down():
        say("the lab was down already")
