"""What is seen of a guest from outside while it migrates: packets, and a TCP connection where that was asked for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct

from vferry.controller.configuration import read_controller_configuration
from vferry.controller.operations import OperationFolder, OperationState
from vferry.controller.state import State
from vferry.model.problem import Problem
from vferry.probe.record import ProbeRecord
from vferry.probe.session import ProbeSession
from vferry.probe.tcp import TcpRecord, TcpSession

SETTLE_S = 0.5
"""Probes before the first change and after the last one, so that both have a baseline."""


class Seen(Struct, frozen=True, kw_only=True):
    """The probes, or why there are none; the TCP connection, if there was one, or why there was none, if asked for."""

    probes: ProbeRecord | None = None
    note: str | None = None
    tcp: TcpRecord | None = None
    tcp_note: str | None = None


Stop = Callable[[], Awaitable[Seen]]
Tell = Callable[[int, float], None]
Connection = TcpSession | str | None


@asynccontextmanager
async def probing(state: State, folder: OperationFolder, operation: OperationState, tell: Tell) -> AsyncIterator[Stop]:
    """Probes the guest meanwhile; yields what ends that with what was seen.

    `tell` hears, about once a second, the probes lost so far and for how many ms there has been no answer.
    """
    if not operation.measured:
        yield _unseen("it was asked for with --no-probe")
        return
    address = operation.probe_address
    if address is None:
        yield _unseen("the guest's address is not known: name it with --probe ADDRESS")
        return
    namespace = operation.probe_from.removeprefix("netns:") if operation.probe_from else None
    async with AsyncExitStack() as stack:
        connection = await _connected(stack, address, operation.probe_tcp, namespace)
        packets = await _packets(stack, state, folder, address, namespace)
        news = asyncio.create_task(_pass_on(packets, tell))
        await asyncio.sleep(SETTLE_S)

        async def stop() -> Seen:
            (probes, note), (tcp, tcp_note) = await asyncio.gather(_answered(packets, address), _ended(connection))
            await news
            return Seen(probes=probes, note=note, tcp=tcp, tcp_note=tcp_note)

        try:
            yield stop
        finally:
            news.cancel()


async def _connected(stack: AsyncExitStack, address: str, port: int | None, namespace: str | None) -> Connection:
    """The TCP connection, or why there is none: nothing that keeps the guest from migrating."""
    if port is None:
        return None
    try:
        return await stack.enter_async_context(await TcpSession.start(address, port, namespace=namespace))
    except Problem as problem:
        return str(problem)


async def _packets(
    stack: AsyncExitStack, state: State, folder: OperationFolder, address: str, namespace: str | None
) -> ProbeSession | str:
    """The session that sends them, or why there is none."""
    settings = read_controller_configuration(state).probe
    method = "icmp" if settings.method == "auto" else settings.method
    started = ProbeSession.start(
        address, folder.probes, rate=settings.rate_hz, method=method, namespace=namespace, adapt=True
    )
    try:
        return await stack.enter_async_context(await started)
    except Problem as problem:
        return str(problem)


async def _pass_on(packets: ProbeSession | str, tell: Tell) -> None:
    if not isinstance(packets, str):
        async for live in packets.lines():
            tell(live.lost, live.gap_ms)


async def _answered(packets: ProbeSession | str, address: str) -> tuple[ProbeRecord | None, str | None]:
    """A record without a single answer says nothing of the migration."""
    if isinstance(packets, str):
        return None, packets
    try:
        record = await packets.stop()
    except Problem as problem:
        return None, str(problem)
    if any(rtt >= 0 for rtt in record.rtt):
        return record, None
    return None, f"no probe to {address} was ever answered, before, during or after"


async def _ended(connection: Connection) -> tuple[TcpRecord | None, str | None]:
    if connection is None or isinstance(connection, str):
        return None, connection
    try:
        return await connection.stop(patient=True), None
    except Problem as problem:
        return None, str(problem)


def _unseen(why: str) -> Stop:
    async def stop() -> Seen:
        return Seen(note=why)

    return stop
