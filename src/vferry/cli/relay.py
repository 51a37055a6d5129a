"""`vferry relay`: makes a host's relay, shows it and takes it back."""

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address

import click
import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vferry.cli import choices, output, relay_release, show
from vferry.controller import relay, relay_chain
from vferry.controller.state import find_state
from vferry.model.problem import Exit, Problem
from vferry.model.relay import PortCounters, Relay, RelayView
from vferry.plan.relay import RelayPlan
from vferry.plan.relay_chain import ChainWishes, Service
from vferry.plan.relay_gateway import GatewayWishes
from vferry.report import relay_metrics
from vferry.report.relay_rates import COUNTERS, PortRates

INTERVAL_S = 2.0
FORGIVEN_S = 300.0
"""For how long a watched host may say nothing: as long as it takes to be booted."""
CHAIN_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}"
pause = asyncio.sleep
clock = time.monotonic


@click.group()
def command() -> None:
    """Give guests a VF's speed under a virtio NIC: a switch in user space drives VFs for them.

    \b
    Example: vferry relay enable host1 --uplink enp1s0
    """


command.add_command(relay_release.command)


@command.command()
@click.argument("host")
@click.option("--uplink", required=True, metavar="PF[,PF]", help="The PFs whose VFs the relay drives.")
@click.option("--switched", is_flag=True, help="One switch for all guests, for NICs that cannot do that themselves.")
@click.option("--dry-run", is_flag=True, help="Print the steps, and change nothing.")
def enable(host: str, uplink: str, switched: bool, dry_run: bool) -> None:  # noqa: FBT001
    """Make the relay of HOST: huge pages, VFs, and CPUs that only forward.

    What fails is undone. Done again, it makes whole what is missing.

    \b
    Example: vferry relay enable host1 --uplink enp1s0
             vferry relay enable host1 --uplink enp1s0,enp3s0 --switched --dry-run
    """
    state = find_state()
    names = tuple(name.strip() for name in uplink.split(",") if name.strip())
    found = asyncio.run(relay.assess(state, host, names, switched=switched))
    show.findings(found.findings, err=True)
    if found.plan is None:
        sys.exit(Exit.REFUSED)
    if dry_run:
        show.host_steps(found.plan.steps)
        return
    with show.Line() as line:
        asyncio.run(relay.enable(state, host, found.plan, line.begin))
    click.echo(_made(host, found.plan))


@command.command()
@click.argument("host")
def disable(host: str) -> None:
    """Take the relay of HOST back: its VFs, its huge pages, and what it has set of Open vSwitch.

    \b
    Example: vferry relay disable host1
    """
    with show.Line() as line:
        found = asyncio.run(relay.disable(find_state(), host, line.begin))
    show.findings(found.findings, err=True)
    if found.errors:
        sys.exit(Exit.REFUSED)
    if found.plan is not None:
        click.echo(f"{host} has no relay any more")


@command.command()
@click.argument("host")
@click.option("--vlan", required=True, type=click.IntRange(1, 4094), help="Whose frames go there: a tenant's VLAN.")
@click.option("--to", metavar="ADDRESS", help="The gateway's IPv4 address.")
@click.option("--key", type=click.IntRange(0, 0xFFFFFFFF), help="What tells tenants apart in GRE; else the VLAN.")
@click.option("--label", type=click.IntRange(16, (1 << 20) - 1), help="MPLS in GRE: what tells tenants apart there.")
@click.option("--address", metavar="ADDRESS", help="Where it takes IPv4, not Ethernet: its address among the guests.")
@click.option("--bridge", help="Which of the relay's bridges; needed where it has several.")
@click.option("--none", is_flag=True, help="Have it go to none any more.")
@click.option("--dry-run", is_flag=True, help="Print the steps, and change nothing.")
def gateway(
    host: str,
    vlan: int,
    to: str | None,
    key: int | None,
    label: int | None,
    address: str | None,
    bridge: str | None,
    none: bool,  # noqa: FBT001
    dry_run: bool,  # noqa: FBT001
) -> None:
    """Lead a VLAN of HOST's switched relay to a gateway by GRE, or MPLS in GRE: as Ethernet, or IPv4 alone.

    What fails is undone. The host needs an address on the bridge's own interface, and a way to the gateway.

    \b
    Example: vferry relay gateway host1 --vlan 7 --to 192.0.2.9
             vferry relay gateway host1 --vlan 8 --to 192.0.2.9 --label 100008 --address 10.0.0.254
             vferry relay gateway host1 --vlan 7 --none
    """
    state = find_state()
    if none == (to is not None) or (none and (key, label, address) != (None, None, None)):
        raise click.UsageError("name the gateway with --to, or say --none")
    if key is not None and label is not None:
        raise click.UsageError("--key and --label do not go together")
    if to is None:
        found = asyncio.run(relay.assess_no_gateway(state, host, vlan, bridge))
    else:
        wishes = GatewayWishes(
            vlan=vlan,
            remote=_address(to, "--to"),
            key=key,
            label=label,
            address=_address(address, "--address") if address else None,
            bridge=bridge,
        )
        found = asyncio.run(relay.assess_gateway(state, host, wishes))
    show.findings(found.findings, err=True)
    if found.errors:
        sys.exit(Exit.REFUSED)
    if found.plan is None:
        return
    if dry_run:
        show.host_steps(found.plan.steps)
        return
    with show.Line() as line:
        asyncio.run(relay.change(state, host, found.plan, line.begin))
    click.echo(f"VLAN {vlan} on {host} goes to {to}" if to else f"VLAN {vlan} on {host} goes to no gateway any more")


@command.command()
@click.argument("host")
@click.argument("name")
@click.option("--of", "served", metavar="MAC[,MAC]", help="The NICs whose frames are led through, of one VLAN.")
@click.option(
    "--through", multiple=True, metavar="MAC,MAC", help="A service's NICs: towards these, and away. Again for the next."
)
@click.option("--vlans", metavar="VLAN[,VLAN]", help="A VLAN before each service, which nobody else is in.")
@click.option("--none", is_flag=True, help="Take the chain back: its guests are in their own VLAN again.")
@click.option("--dry-run", is_flag=True, help="Print the steps, and change nothing.")
def chain(
    host: str,
    name: str,
    served: str | None,
    through: tuple[str, ...],
    vlans: str | None,
    none: bool,  # noqa: FBT001
    dry_run: bool,  # noqa: FBT001
) -> None:
    """Lead guests' frames through services on HOST's switched relay, as the chain NAME.

    Services are guests that pass frames from one NIC to another, as bridges do. While one is away, nothing passes. What
    fails is undone.

    \b
    Example: vferry relay chain host1 web --of 52:54:00:aa:00:0b --vlans 901 \\
                 --through 52:54:00:aa:00:21,52:54:00:aa:00:22
             vferry relay chain host1 web --none
    """
    state = find_state()
    if none == bool(served or through or vlans) or not (none or (served and through and vlans)):
        raise click.UsageError("say --of, --through and --vlans, or --none")
    if none:
        found = asyncio.run(relay_chain.assess_none(state, host, name))
    else:
        found = asyncio.run(relay_chain.assess(state, host, _chain(name, served or "", through, vlans or "")))
    show.findings(found.findings, err=True)
    if found.errors:
        sys.exit(Exit.REFUSED)
    if dry_run:
        show.host_steps(each.step for each in found.steps)
    if dry_run or not found.steps:
        return
    with show.Line() as line:
        asyncio.run(relay_chain.change(state, host, found, line.begin))
    click.echo(f"The chain {name} on {host} is {'taken back' if none else 'made'}")


def _chain(name: str, served: str, through: tuple[str, ...], vlans: str) -> ChainWishes:
    if not re.fullmatch(CHAIN_NAME, name):
        raise click.BadParameter(f"{name!r} is no chain's name: letters, digits, and . _ -", param_hint="NAME")
    pairs = [choices.macs(each, "--through") for each in through]
    if any(len(pair) != 2 for pair in pairs):
        raise click.BadParameter("a service has two NICs: towards the guests, and away", param_hint="--through")
    numbers = [each.strip() for each in vlans.split(",")]
    if any(not each.isdecimal() or not 1 <= int(each) <= 4094 for each in numbers):
        raise click.BadParameter(f"{vlans} are no VLANs: 1 to 4094", param_hint="--vlans")
    return ChainWishes(
        name=name,
        served=choices.macs(served, "--of"),
        services=tuple(Service(inward=pair[0], outward=pair[1]) for pair in pairs),
        vlans=tuple(map(int, numbers)),
    )


def _address(text: str, option: str) -> IPv4Address:
    try:
        found = IPv4Address(text)
    except ValueError as error:
        raise click.BadParameter(f"{text} is no IPv4 address", param_hint=option) from error
    if found.is_multicast or found.is_unspecified or found.is_loopback or int(found) == 0xFFFFFFFF:
        raise click.BadParameter(f"{text} is no host's address", param_hint=option)
    return found


@command.command(name="show")
@click.argument("host")
@click.option("--watch", is_flag=True, help="Look again every two seconds, until it is interrupted.")
@click.option("--json", "json_output", is_flag=True, help="Print JSON; with --watch, a line each time.")
@click.option("--prometheus", is_flag=True, help="Print metrics as Prometheus reads them.")
def show_(host: str, watch: bool, json_output: bool, prometheus: bool) -> None:  # noqa: FBT001
    """Show the relay of HOST: what it has, its ports, what they passed and what they dropped, its CPUs' load.

    \b
    Example: vferry relay show host1 --watch
             vferry relay show host1 --prometheus > /var/lib/prometheus/node-exporter/vferry.prom
    """
    if prometheus and (watch or json_output):
        raise click.UsageError("--prometheus goes with neither --watch nor --json")
    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_watch(host, json_output=json_output))
        return
    view = asyncio.run(relay.view(find_state(), host))
    if json_output:
        output.json(view)
    elif prometheus:
        click.echo(relay_metrics.exposition(host, view), nl=False)
    elif view.relay is None:
        click.echo(_none(host))
    else:
        output.tables(*_tables(host, view))
        show.findings(asyncio.run(relay.about(find_state(), host)), err=True)


async def _watch(host: str, *, json_output: bool) -> None:
    """Looks again and again. Once the host has answered, it may say nothing for `FORGIVEN_S`."""
    state, answered_at = find_state(), None
    console = Console(width=None if sys.stdout.isatty() else 400, highlight=False)
    with Live(console=console, auto_refresh=False) as live:
        screen = _Lines(live) if json_output else _Screen(live, host)
        while True:
            try:
                view = await relay.view(state, host)
            except Problem as problem:
                if answered_at is None or clock() - answered_at >= FORGIVEN_S:
                    raise
                screen.miss(f"{problem.message}. It is asked again.")
            else:
                answered_at = clock()
                screen.show(view)
            await pause(INTERVAL_S)


class _Lines:
    """A watched relay as a line of JSON each time."""

    def __init__(self, live: Live) -> None:
        self._console = live.console

    def show(self, view: RelayView) -> None:
        self._console.print(msgspec.json.encode(view).decode(), soft_wrap=True, markup=False)

    def miss(self, why: str) -> None:
        click.echo(why, err=True)


class _Screen:
    """A watched relay as tables, with rates, and the load since the look before."""

    def __init__(self, live: Live, host: str) -> None:
        self._live = live
        self._host = host
        self._rates = PortRates()
        self._before: RelayView | None = None
        self._shown = Group()

    def show(self, view: RelayView) -> None:
        tables = _tables(self._host, view, self._before, self._rates.see(view))
        self._before = view
        self._shown = Group(*(tables or [_none(self._host)]))
        self._live.update(self._shown, refresh=True)

    def miss(self, why: str) -> None:
        """Below what was seen last."""
        self._live.update(Group(self._shown, Text(why, style="red")), refresh=True)


def _none(host: str) -> str:
    return f"{host} has no relay: vferry relay enable {host} --uplink PF"


def _tables(
    host: str, view: RelayView, before: RelayView | None = None, rates: Mapping[str, Mapping[str, float]] | None = None
) -> tuple[Table, ...]:
    return (_summary(host, view), _cpus(view, before), _ports(view, rates or {})) if view.relay else ()


def _summary(host: str, view: RelayView) -> Table:
    made = Table(box=None, show_header=False, title=f"Relay of {host}", title_justify="left", pad_edge=False)
    for row in summary(view.relay):
        made.add_row(*row)
    made.add_row("DPDK", view.silence or ("runs" if view.dpdk_started else "has not started"))
    if view.connections is not None:
        made.add_row("Connections", f"{view.connections:,}")
    return made


def summary(made: Relay | None) -> Iterator[tuple[str, str]]:
    """A relay in a few rows."""
    if made is None:
        return
    yield "State", made.state
    yield "Kind", made.kind
    yield "Uplinks", ", ".join(made.uplinks)
    yield "CPUs", ", ".join(map(str, made.cores))
    yield "Memory", _memory(made)
    yield "VFs", ", ".join(f"{vf.address} ({vf.index} of {vf.pf})" for vf in made.vfs) or "as guests come"
    if made.gateways:
        yield "Gateways", "\n".join(each.described for each in made.gateways)
    if made.ports:
        yield (
            "Guests",
            "\n".join(f"{port.guest}, {port.mac}: {port.joined_to}" for port in made.ports),
        )


def _memory(made: Relay) -> str:
    added = ", ".join(f"{pages.added_mib} MiB on NUMA node {pages.node}" for pages in made.pages)
    return f"huge pages made for it: {added}" if added else "huge pages that were there"


def _cpus(view: RelayView, before: RelayView | None) -> Table:
    """Since the last look, or since Open vSwitch was started."""
    earlier = {cpu.number: cpu for cpu in before.cpus} if before else {}
    made = output.table("CPU", "NUMA NODE", "LOAD", "PACKETS", title="CPUs")
    for cpu in view.cpus:
        load = cpu.load(earlier.get(cpu.number))
        made.add_row(str(cpu.number), str(cpu.node), "-" if load is None else f"{load:.0%}", f"{cpu.packets:,}")
    return made


def _ports(view: RelayView, rates: Mapping[str, Mapping[str, float]]) -> Table:
    made = output.table(
        "PORT", "BRIDGE", "GUEST", "LINK", "PACKETS IN", "OUT", "BYTES IN", "OUT", "DROPPED", title="Ports"
    )
    for port in view.ports:
        made.add_row(
            port.name,
            port.bridge,
            port.guest or "-",
            port.error or {None: "-", True: "up", False: "down"}[port.up],
            *(_counted(port, name, rates.get(port.name, {})) for name in COUNTERS),
            ", ".join(f"{name} {count:,}" for name, count in port.drops.items()) or "-",
        )
    return made


def _counted(port: PortCounters, name: str, rates: Mapping[str, float]) -> str:
    count = f"{port.count(name):,}"
    return f"{count} ({rates[name]:,.0f}/s)" if name in rates else count


def _made(host: str, plan: RelayPlan) -> str:
    made = plan.relay
    cores = ", ".join(map(str, made.cores))
    return f"{host} has a {made.kind} relay on {', '.join(made.uplinks)}, which forwards on CPU {cores}"
