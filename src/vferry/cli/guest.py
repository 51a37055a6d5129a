"""`vferry guest`: lists and shows the guests of all registered hosts."""

import asyncio
import difflib
import sys
from collections.abc import Sequence

import click
from msgspec import Struct
from rich.table import Table

from vferry.cli import output
from vferry.cli import show as show_lines
from vferry.controller import guest_nic, nic_driving
from vferry.controller.hosts import list_hosts, open_host
from vferry.controller.state import find_state
from vferry.controller.survey import with_blockers
from vferry.host.api import TakeInventory
from vferry.model.guest import Guest, GuestState, HostDevice, Nic, StateSize
from vferry.model.problem import Exit, Problem
from vferry.plan import vfio
from vferry.plan.nic_plan import NicTarget
from vferry.report import words

as_json = click.option("--json", "json_output", is_flag=True, help="Print JSON.")
TIMEOUT_S = 60.0
# Where a guest is, if two hosts define it: where it runs, and else where it at least exists as a process.
NEARNESS = {GuestState.RUNNING: 0, GuestState.PAUSED: 1, GuestState.OFF: 2}


class Found(Struct, frozen=True):
    """The guests of the hosts that answered, and why the others did not."""

    guests: tuple[Guest, ...]
    silent: dict[str, Problem]


@click.group()
def command() -> None:
    """List and show guests, and put their NICs on something else.

    \b
    Example: vferry guest show guest1
    """


@command.command(name="list")
@as_json
def list_(json_output: bool) -> None:  # noqa: FBT001
    """List the guests of all registered hosts.

    \b
    Example: vferry guest list --json
    """
    found = asyncio.run(find_guests())
    _warn(found)
    if json_output:
        output.json(found.guests)
        return
    table = output.table("GUEST", "HOST", "STATE", "ADDRESS", "MEMORY", "NICS")
    for guest in found.guests:
        nics = "\n".join(f"{nic.mac} {describe(nic)}" for nic in guest.nics)
        memory = f"{guest.memory / 2**30:.2g} GiB"
        table.add_row(guest.name, guest.host, guest.state, guest.address or "-", memory, nics or "-")
    output.tables(table)


@command.command()
@click.argument("name")
@as_json
def show(name: str, json_output: bool) -> None:  # noqa: FBT001
    """Show a guest: where it is, and what its NICs are on.

    \b
    Example: vferry guest show guest1 --json
    """
    found = asyncio.run(find_guests())
    here, *elsewhere = choose(found, name)
    for other in elsewhere:
        click.echo(f"Note: {other.host} defines {name}, too; there it is {other.state}.", err=True)
    here, silence = asyncio.run(_with_blockers(here))
    if silence:
        click.echo(f"Note: {silence}", err=True)
    if json_output:
        output.json(here)
        return
    output.tables(_summary(here), _nics(here), *([_devices(here)] if here.devices else []))


@command.command(name="nic")
@click.argument("name", metavar="GUEST")
@click.argument("mac")
@click.option("--to", required=True, type=click.Choice([*map(str, NicTarget)]), help="What to put the NIC on.")
@click.option("--ovn-port", metavar="NAME", help="On a switched relay: the logical port of OVN's that the NIC is.")
@click.option("--dry-run", is_flag=True, help="Print the steps, and change nothing.")
def nic(name: str, mac: str, to: str, ovn_port: str | None, dry_run: bool) -> None:  # noqa: FBT001
    """Put a guest's NIC on a VF, on its host's relay, or on the standby path (virtio).

    A guest that runs is moved to a new NIC, by its agent, before it loses the one that it has; between the relay and
    the standby path by way of a VF, of which one must be free. Its definition is changed for the next boot, and keeps
    what the guest sees of the NIC: its MAC, its place, its name, and on the relay or a bridge its MTU. It is an
    operation: `vferry operation list` shows it. If the command is killed, it goes on where it is asked for again, or by
    `vferry operation recover`.

    \b
    Example: vferry guest nic guest1 52:54:00:aa:00:01 --to relay
    """
    if ovn_port and to != NicTarget.RELAY:
        raise click.UsageError("--ovn-port goes with --to relay")
    state = find_state()
    here = _only_one(asyncio.run(find_guests()), name)
    found = asyncio.run(guest_nic.assess(state, here.host, name, mac.lower(), NicTarget(to), logical_port=ovn_port))
    show_lines.findings(found.findings, err=True)
    if found.plan is None:
        sys.exit(Exit.REFUSED)
    if dry_run:
        show_lines.host_steps(guest_nic.steps(found.plan))
        return
    with show_lines.Line() as line:
        asyncio.run(nic_driving.move(state, found.plan, line.begin))
    if guest_nic.steps(found.plan):
        click.echo(f"{mac.lower()} of {name} is on {found.plan.to.described}")


async def find_guests() -> Found:
    """Asks all registered hosts at the same time. Guests are in the order of their names, then of their hosts."""
    names = [record.name for record in list_hosts()]
    answers = await asyncio.gather(*(_guests_of(name) for name in names))
    guests = [guest for answer in answers if not isinstance(answer, Problem) for guest in answer]
    silent = {name: answer for name, answer in zip(names, answers, strict=True) if isinstance(answer, Problem)}
    return Found(tuple(sorted(guests, key=lambda guest: (guest.name, guest.host))), silent)


def choose(found: Found, name: str) -> list[Guest]:
    """A guest's definitions, the one that counts first. Problem ``guest-unknown``, with names that are near."""
    definitions = [guest for guest in found.guests if guest.name == name]
    if definitions:
        return sorted(definitions, key=lambda guest: NEARNESS[guest.state])
    near = difflib.get_close_matches(name, {guest.name for guest in found.guests}, n=3, cutoff=0.5)
    what = f"No host that answers has a guest {name}" if found.silent else f"No host has a guest {name}"
    silent = f" ({', '.join(sorted(found.silent))} did not answer)" if found.silent else ""
    raise Problem(
        "guest-unknown",
        f"{what}; near: {', '.join(sorted(near))}{silent}" if near else what + silent,
        "Look with: vferry guest list",
        exit=Exit.USAGE,
        guest=name,
        near=sorted(near),
    )


def _only_one(found: Found, name: str) -> Guest:
    """A guest's only definition: another host might run it. Problems: ``host-silent``, ``guest-ambiguous``."""
    here, *elsewhere = choose(found, name)
    for host, problem in found.silent.items():
        message = f"Whether {name} runs on {host} is not known: {problem.message}"
        raise Problem(
            "host-silent", message, f"Try again when it answers, or: vferry host remove {host}", exit=Exit.REFUSED
        )
    for other in elsewhere:
        raise Problem(
            "guest-ambiguous",
            f"{name} is defined on {here.host} and on {other.host}",
            f"Remove what is left of it: virsh undefine {name}",
            exit=Exit.REFUSED,
        )
    return here


def describe(nic: Nic) -> str:
    """What a NIC is on, in a few words."""
    on = f"VF {nic.vf.index} of {nic.vf.pf}" if nic.vf else nic.interface
    if nic.interface:
        return f"{nic.model} on a macvtap on {on}"
    if nic.relay_bridge:
        return f"{nic.model} on the relay, bridge {nic.relay_bridge}"
    if nic.socket:
        return f"{nic.model} on the relay, {on}" if on else f"{nic.model} on {nic.socket}"
    if on:
        return on
    return f"{nic.model} on {nic.bridge}" if nic.bridge else nic.model


async def _with_blockers(guest: Guest) -> tuple[Guest, Problem | None]:
    async with open_host(guest.host) as remote:
        return await with_blockers(remote, guest)


async def _guests_of(host: str) -> Sequence[Guest] | Problem:
    try:
        async with open_host(host) as remote:
            return (await remote.call(TakeInventory(), timeout_s=TIMEOUT_S)).guests
    except Problem as problem:
        return problem


def _warn(found: Found) -> None:
    for problem in found.silent.values():
        click.echo(f"Note: {problem}", err=True)


def _summary(guest: Guest) -> Table:
    table = Table(box=None, show_header=False, title=f"Guest {guest.name}", title_justify="left", pad_edge=False)
    reason = f" ({guest.pause_reason})" if guest.pause_reason else ""
    rows = (
        ("Host", guest.host),
        ("State", f"{guest.state}{reason}"),
        ("Defined", "persistently" if guest.persistent else "only while it runs"),
        ("Memory", f"{guest.memory / 2**20:.0f} MiB"),
        ("CPUs", str(guest.vcpus)),
        ("Machine", guest.machine),
        ("Disks", "\n".join(guest.disks) or "-"),
        ("Address", guest.address or "-"),
        ("Guest agent", "connected" if guest.agent_connected else "not connected"),
        *([("QEMU would not", "\n".join(guest.blockers))] if guest.blockers else []),
        *([("Device state", _device_state(guest.device_state))] if guest.device_state else []),
    )
    for row in rows:
        table.add_row(*row)
    return table


def _device_state(state: StateSize) -> str:
    silent = f"; {state.silent} more do not say" if state.silent else ""
    return f"{'at most ' if state.precopy else ''}{words.size(state.bytes)}, sent in its pause{silent}"


def _devices(guest: Guest) -> Table:
    table = output.table("KIND", "NAME", "TYPE", "ALIAS", "MIGRATES", title="Devices of its host")
    for device in guest.devices:
        columns = (device.kind, device.name or "-", device.type or "-", device.alias, _migrates(guest, device))
        table.add_row(*columns)
    return table


def _migrates(guest: Guest, device: HostDevice) -> str:
    blocked = vfio.blocked(guest, device.name)
    if blocked is None:
        return "not asked"
    return "yes" if device.name and not blocked else "no"


def _nics(guest: Guest) -> Table:
    table = output.table("MAC", "MODEL", "ALIAS", "VF", "ADDRESS", "ON", "VLAN", "TEAMING", title="NICs")
    for nic in guest.nics:
        vf, address = (f"{nic.vf.pf}/{nic.vf.index}", nic.vf.address) if nic.vf else ("-", "-")
        on = nic.bridge or nic.interface or nic.relay_bridge or nic.socket or "-"
        columns = (nic.mac, nic.model, nic.alias, vf, address, on, str(nic.vlan), nic.teaming or "-")
        table.add_row(*columns)
    return table
