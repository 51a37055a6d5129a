"""A watched TCP connection, to servers of the test's own."""

import asyncio
import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from vferry.model.problem import Problem
from vferry.probe import connection
from vferry.probe.connection import CLOSED, NO_ECHO, ConnectionWatch
from vferry.probe.stream import RECORD
from vferry.probe.tcp import TcpRecord, TcpSession

HERE = "127.0.0.1"
RESET = ("Connection reset by peer", "Broken pipe")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(4096):
        writer.write(data)


@contextlib.asynccontextmanager
async def serving(serve: Serve, address: str = HERE) -> AsyncIterator[int]:
    """The port of a server that treats each connection so."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(served, address, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def watched(serve: Serve, seconds: float) -> TcpRecord:
    async with serving(serve) as port, await TcpSession.start(HERE, port) as session:
        await asyncio.sleep(seconds)
        record = await session.stop()
        assert await session.stop() == record
    assert record.port == port
    return record


@pytest.mark.parametrize("address", [HERE, "::1"])
async def test_a_connection_that_lasts_brings_back_every_byte(address: str) -> None:
    async with serving(echo, address) as port, await TcpSession.start(address, port) as session:
        await asyncio.sleep(1.5)
        record = await session.stop()
    took_s = (time.monotonic_ns() - record.opened_at) / 1e9
    assert 20 <= record.echoed == record.sent <= 50 * took_s + 2
    assert (record.wrong, record.ended, record.ended_at) == (0, None, None)
    assert record.retransmissions is not None
    assert record.retransmissions < record.sent / 2, "a busy machine's own"
    assert 0 < record.stall_ns < 500_000_000
    assert record.opened_at <= record.stall_at < time.monotonic_ns()


async def test_silence_is_a_stall_of_its_length() -> None:
    began = 0

    async def pausing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal began
        for number in range(60):
            if number == 20:
                began = time.monotonic_ns()
                await asyncio.sleep(0.7)
            writer.write(await reader.readexactly(RECORD))
        await echo(reader, writer)

    record = await watched(pausing, 2.5)
    assert 650e6 < record.stall_ns < 1200e6
    assert abs(record.stall_at - began) < 100e6
    assert record.echoed == record.sent
    assert record.ended is None


async def test_silence_that_does_not_end_is_counted_up_to_the_end() -> None:
    async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            pass

    record = await watched(mute, 1.2)
    assert record.echoed == 0 < record.sent
    assert 900e6 < record.stall_ns < 1800e6
    assert record.ended is None


@pytest.mark.parametrize("patient", [True, False])
async def test_a_connection_that_is_silent_at_the_end_is_waited_for_as_long_again(*, patient: bool) -> None:
    wake = asyncio.Event()

    async def sleeping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wake.wait()
        await echo(reader, writer)

    async with serving(sleeping) as port, await TcpSession.start(HERE, port) as session:
        await asyncio.sleep(2.5)
        began = time.monotonic()
        stopping = asyncio.create_task(session.stop(patient=patient))
        await asyncio.sleep(1.6)
        assert stopping.done() != patient
        wake.set()
        record = await stopping
        took = time.monotonic() - began
    assert took < 3.4
    assert (record.echoed == record.sent > 50) == patient
    assert record.ended is None
    assert record.stall_ns > (3.5e9 if patient else 2e9)


async def test_patience_ends_with_whoever_asked_for_it() -> None:
    async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            pass

    async with serving(mute) as port, await TcpSession.start(HERE, port) as session:
        await asyncio.sleep(3)
        asked = asyncio.create_task(session.stop(patient=True))
        await asyncio.sleep(1.2)
        assert not asked.done()
        assert session._process.stdin is not None
        session._process.stdin.close()
        await asyncio.wait_for(asked, 1)


async def test_a_stopped_prober_is_no_stall() -> None:
    async with serving(echo) as port, await TcpSession.start(HERE, port) as session:
        await asyncio.sleep(0.5)
        os.kill(session.pid, signal.SIGSTOP)
        await asyncio.sleep(0.7)
        os.kill(session.pid, signal.SIGCONT)
        await asyncio.sleep(0.5)
        record = await session.stop()
    assert record.self_stall_ns > 500e6
    assert record.stall_ns < 300e6
    assert record.echoed == record.sent < 60


async def test_bytes_that_come_back_changed_are_counted() -> None:
    async def spoiling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(10):
            data = bytearray(await reader.readexactly(RECORD))
            if number == 5:
                data[9] ^= 1
                data[63] ^= 128
            writer.write(data)
        await echo(reader, writer)

    record = await watched(spoiling, 0.8)
    assert record.wrong == 2
    assert record.echoed == record.sent - 1
    assert record.ended is None


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize(
    ("finish", "why"),
    [
        pytest.param(reset, RESET, id="reset"),
        # A record that is on its way to a closed socket is answered with a reset.
        pytest.param(lambda writer: writer.close(), (CLOSED, *RESET), id="closed"),
        pytest.param(lambda writer: writer.write(bytes(1000)), (NO_ECHO,), id="no echo service"),
    ],
)
async def test_a_connection_that_ends_is_told_with_its_time(
    finish: Callable[[asyncio.StreamWriter], None], why: tuple[str, ...]
) -> None:
    ended = 0

    async def ending(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal ended
        for _ in range(15):
            writer.write(await reader.readexactly(RECORD))
        await writer.drain()
        ended = time.monotonic_ns()
        finish(writer)
        with contextlib.suppress(ConnectionError):
            await reader.read()

    async with serving(ending) as port, await TcpSession.start(HERE, port) as session:
        await asyncio.wait_for(session.wait(), 20)
        record = await session.stop()
    assert record.ended in why
    assert record.ended_at is not None
    assert 0 <= record.ended_at - ended < 2e9
    assert 14 <= record.echoed <= record.sent < 60


@pytest.mark.parametrize(
    ("address", "port", "namespace", "code"),
    [
        (HERE, 1, None, "probe-tcp"),
        ("nonsense", 7, None, "probe-tcp"),
        (HERE, 0, None, "probe-usage"),
        (HERE, 7, "../x", "probe-usage"),
        (HERE, 7, "no-such-namespace", "probe-namespace"),
    ],
)
async def test_where_no_connection_can_be_made_it_is_a_problem(
    address: str, port: int, namespace: str | None, code: str
) -> None:
    with pytest.raises(Problem) as caught:
        await TcpSession.start(address, port, namespace=namespace)
    assert caught.value.code == code


def test_an_address_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_S", 0.2)
    with socket.socket() as full:
        full.bind((HERE, 0))
        full.listen(0)
        address = full.getsockname()
        with contextlib.ExitStack() as stack:
            for _ in range(2):  # fill its queue, so that the next one is left without an answer
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)  # noqa: FBT003
                waiting.connect_ex(address)
            began = time.monotonic()
            with pytest.raises(OSError, match="timed out"):
                connection.connect(*address)
            assert time.monotonic() - began < 5


def test_what_does_not_fit_into_the_socket_waits_without_growing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        ours.setblocking(False)  # noqa: FBT003
        watch = ConnectionWatch(ours, lambda _: None)
        for _ in range(2000):
            watch._write()
        stuck = watch._taken
        assert 0 < stuck < 2000 * RECORD
        came = bytearray()
        while len(came) < 4 * stuck and select.select([theirs], [], [], 0)[0]:
            came += theirs.recv(4096)
            watch._write()
        assert len(came) > stuck
        assert watch._echo.take(bytes(came[: stuck // RECORD * RECORD]))
        assert watch._echo.wrong == 0


STARTER = """
import asyncio, sys
from vferry.probe.tcp import TcpSession
async def main():
    session = await TcpSession.start("127.0.0.1", int(sys.argv[1]))
    print(session.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has asked for its end yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_nothing_remains_of_a_killed_starter() -> None:
    with socket.create_server((HERE, 0)) as server:
        port = server.getsockname()[1]
        with subprocess.Popen([sys.executable, "-c", STARTER, str(port)], stdout=subprocess.PIPE) as starter:
            assert starter.stdout is not None
            pid = int(starter.stdout.readline())
            starter.kill()
        limit = time.monotonic() + 20
        while not gone(pid) and time.monotonic() < limit:
            time.sleep(0.05)
        assert gone(pid)
