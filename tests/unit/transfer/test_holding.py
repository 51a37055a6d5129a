"""What streams are allowed, on real sockets."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import pytest

from vferry.transfer.allowance import Allowance
from vferry.transfer.endpoint import tune_tcp
from vferry.transfer.holding import Holding

from .conftest import PLAIN, MakePair, wait_for


class Tcp(NamedTuple):
    ours: socket.socket
    theirs: socket.socket


@pytest.fixture
def tcp() -> Iterator[Tcp]:
    """A connection with small windows, so that it is soon full."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    with ours, theirs:
        tune_tcp(ours, 15)
        ours.settimeout(0)
        yield Tcp(ours, theirs)


def fill(sock: socket.socket) -> int:
    """Write until the kernel takes no more; returns how much it took."""
    taken = 0
    with suppress(BlockingIOError):
        while True:
            taken += sock.send(bytes(4096))
    return taken


def limit(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)


def test_a_stream_that_does_not_get_on_may_hold_less_each_time(tcp: Tcp) -> None:
    holding = Holding()
    holding.add(tcp.ours)
    before = fill(tcp.ours)
    for _ in range(20):
        holding.tick()
    least = holding.allowed()
    assert least < Allowance()
    assert limit(tcp.ours) == least.unsent_bytes
    while before > 0:
        before -= len(tcp.theirs.recv(65536))
    assert fill(tcp.ours) < Allowance().unsent_bytes


def test_nothing_is_limited_where_nothing_waits(tcp: Tcp) -> None:
    holding = Holding()
    holding.add(tcp.ours)
    tcp.ours.send(bytes(20_000))
    tcp.theirs.recv(20_000, socket.MSG_WAITALL)
    holding.tick()
    assert holding.allowed() == Allowance()
    assert limit(tcp.ours) == Allowance().unsent_bytes


def test_streams_that_have_ended_are_left_out(tcp: Tcp) -> None:
    holding = Holding()
    holding.add(tcp.ours)
    fill(tcp.ours)
    holding.remove(tcp.ours)
    holding.tick()
    assert holding.allowed() == Allowance()
    holding.add(tcp.ours)
    tcp.ours.close()
    holding.tick()
    assert holding.allowed() == Allowance()


def test_a_gateway_measures_its_connections(make_pair: MakePair) -> None:
    """The destination takes nothing: what its connection may hold becomes less."""
    pair = make_pair(PLAIN, PLAIN)
    near, far = pair.open()
    with near, far:
        near.settimeout(0)
        allowed = pair.send._holding.allowed

        def is_less() -> bool:
            fill(near)
            pair.send.tick()
            return allowed() < Allowance()

        wait_for(is_less)
