"""`vferry probe`: measure the interruption of an address by packets."""

import asyncio
import contextlib
import json
import signal
import sys
import tempfile
from pathlib import Path

import click
import msgspec
from msgspec.structs import replace

from vferry.model.problem import Problem
from vferry.model.report import Network
from vferry.probe.analysis import attribute, connection
from vferry.probe.session import METHODS, RATE_MAX, RATE_MIN, SECONDS_MAX, Live, ProbeSession
from vferry.probe.tcp import PORT_MAX, PORT_MIN, TcpRecord, TcpSession
from vferry.report import words


@click.command("probe")
@click.argument("address")
@click.option(
    "--rate", type=click.IntRange(RATE_MIN, RATE_MAX), default=1000, show_default=True, help="Probes a second."
)
@click.option("--seconds", type=click.FloatRange(0, SECONDS_MAX, min_open=True), help="How long; else until Ctrl-C.")
@click.option("--from", "origin", metavar="netns:NAME", help="Probe from this network namespace (see ip netns).")
@click.option("--method", type=click.Choice(METHODS), default="icmp", show_default=True, help="What a probe is.")
@click.option(
    "--tcp",
    "port",
    type=click.IntRange(PORT_MIN, PORT_MAX),
    metavar="PORT",
    help="Watch a TCP connection to this port too, where something echoes what it gets.",
)
@click.option("--record", type=click.Path(path_type=Path, dir_okay=False), help="Keep the record of all probes here.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
def command(
    address: str,
    rate: int,
    seconds: float | None,
    origin: str | None,
    method: str,
    port: int | None,
    record: Path | None,
    as_json: bool,  # noqa: FBT001 - click passes options by name
) -> None:
    """Measure the interruption of ADDRESS by packets, as a migration does.

    ADDRESS is an IPv4 or IPv6 address. Counts as lost what is not answered within a second, as late what is
    answered after more than 200 ms. Needs root.

    \b
    Example: vferry probe 192.0.2.10 --seconds 30
             vferry probe 192.0.2.10 --from netns:peer --method arp --json
             vferry probe 192.0.2.10 --tcp 7
    """
    with contextlib.ExitStack() as stack:
        if record is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vferry-probe-"))
            record = Path(folder, "probes")
        namespace = _namespace(origin)
        network = asyncio.run(_measure(address, record, rate, seconds, namespace, method, port, quiet=as_json))
    if as_json:
        sys.stdout.write(json.dumps({"address": address, **msgspec.to_builtins(network)}) + "\n")
    else:
        click.echo(summary(network))


def _namespace(origin: str | None) -> str | None:
    """The namespace's name of `netns:NAME`. Raises Problem."""
    if origin is None:
        return None
    kind, _, name = origin.partition(":")
    if kind != "netns" or not name:
        raise Problem("probe-usage", f"{origin!r} is no place to probe from", "Write --from netns:NAME")
    return name


async def _measure(
    address: str,
    path: Path,
    rate: int,
    seconds: float | None,
    namespace: str | None,
    method: str,
    port: int | None,
    *,
    quiet: bool,
) -> Network:
    """Measures until the time is over or a signal comes, with a line each second unless `quiet`."""
    async with contextlib.AsyncExitStack() as stack:
        watched = None
        if port is not None:
            watched = await stack.enter_async_context(await TcpSession.start(address, port, namespace=namespace))
        started = ProbeSession.start(address, path, rate=rate, method=method, namespace=namespace, seconds=seconds)
        session = await stack.enter_async_context(await started)
        shower = asyncio.create_task(_show(session, quiet=quiet))
        await _over_or_stopped(shower)
        record, tcp = await asyncio.gather(session.stop(), _ended(watched))
        await shower
    network = await asyncio.to_thread(attribute, record, [])
    return replace(network, tcp=connection(tcp, [], tcp.opened_at / 1e9)) if tcp else network


async def _ended(watched: TcpSession | None) -> TcpRecord | None:
    return await watched.stop() if watched else None


async def _over_or_stopped(shower: asyncio.Task[None]) -> None:
    """Waits until the measurement is over or a signal comes."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    waiter = asyncio.create_task(stopping.wait())
    await asyncio.wait([shower, waiter], return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()


async def _show(session: ProbeSession, *, quiet: bool) -> None:
    async for live in session.lines():
        if not quiet:
            click.echo(line(live))


def line(live: Live) -> str:
    """The line of a second."""
    slowest = "no answer" if live.rtt_max_ms is None else f"slowest answer {live.rtt_max_ms:.1f} ms"
    gap = f", {live.gap_ms:.0f} ms without an answer now" if live.gap_ms > 100 else ""
    error = f" ({live.error})" if live.error else ""
    return f"{live.sent} sent, {live.lost} lost, {live.late} late, {slowest}{gap}{error}"


def summary(network: Network) -> str:
    """The result in a few lines."""
    if network.longest_gap_ms is None:
        return "Nothing was measured."
    share = f"{100 * network.lost / network.sent:.2f} %"
    lines = [
        f"{network.sent} probes at {network.probe_hz} per second: {network.lost} lost ({share}), {network.late} late",
        f"longest time without an answer: {network.longest_gap_ms:.1f} ms",
    ]
    if network.unsent:
        lines.append(f"{network.unsent} of the lost were refused by this machine's own kernel")
    if network.self_stall_max_ms is not None:
        lines.append(f"this machine kept the prober waiting for up to {network.self_stall_max_ms:.0f} ms (taken off)")
    if network.tcp:
        lines += [f"TCP: {words.tcp(network.tcp)}", *words.of_tcp(network.tcp)]
    return "\n".join(lines)
