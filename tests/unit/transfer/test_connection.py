"""A connection over several streams that is broken when its first stream has ended: nothing waits for the others."""

import random
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from vferry.transfer.connection import Connection
from vferry.transfer.counters import Counters
from vferry.transfer.packing import Packer, PackingChannel
from vferry.transfer.progress import Progress
from vferry.transfer.pump import Pumps
from vferry.transfer.stream import PlainStream
from vferry.transfer.tuner import FixedTuner
from vferry.transfer.tuning import Choice
from vferry.transfer.unpacking import Unpacker, UnpackingChannel
from vferry.transfer.wire import END, WireError

from .conftest import WAIT_S, wait_for

DEAD = "the peer host does not answer"


class Ends(NamedTuple):
    """A socket of the connection's, and what is at its other end."""

    ours: socket.socket
    theirs: socket.socket


@pytest.fixture
def ends() -> Iterator[list[Ends]]:
    """Those of the local process, of the first stream, and of the further one."""
    with ExitStack() as stack:
        pairs = [Ends(*map(stack.enter_context, socket.socketpair())) for _ in range(3)]
        for _, theirs in pairs:
            theirs.settimeout(WAIT_S)
        yield pairs


def carried(ends: list[Ends], pumps: Pumps) -> tuple[Connection, threading.Thread]:
    local, first, _ = ends
    connection = Connection("memory", PlainStream(local.ours), PlainStream(first.ours), 15, pumps=pumps)
    thread = threading.Thread(target=connection.carry, daemon=True)
    thread.start()
    return connection, thread


def broken(connection: Connection, thread: threading.Thread) -> bool:
    """Whether the connection is over soon after its peer was found dead, and says why."""
    connection.abort(DEAD)
    thread.join(WAIT_S)
    return not thread.is_alive() and connection.error == DEAD


def read_to_end_frame(sock: socket.socket) -> None:
    tail = b""
    while tail != END:
        received = sock.recv(1 << 16)
        assert received
        tail = (tail + received)[-len(END) :]


def test_a_sender_does_not_wait_for_a_stream_that_still_sends(ends: list[Ends]) -> None:
    local, first, further = ends
    packer = Packer(PackingChannel(0, None, Counters()), FixedTuner(Choice("none", 0)), [PlainStream(further.ours)])
    connection, thread = carried(ends, Pumps(outward=packer.pump, wake=packer.wake))
    reader = threading.Thread(target=read_to_end_frame, args=(first.theirs,))
    reader.start()
    while not select.select([further.theirs], [], [], 0)[0]:  # nobody reads there: it is left with most of a block
        local.theirs.sendall(random.Random(1).randbytes(1 << 20))  # noqa: S311
    local.theirs.shutdown(socket.SHUT_WR)
    reader.join(WAIT_S)
    assert thread.is_alive()
    assert broken(connection, thread)


def test_a_receiver_does_not_wait_for_a_stream_that_is_still_to_end(ends: list[Ends]) -> None:
    _, first, further = ends
    progress = Progress()
    progress.begin(0)
    unpacker = Unpacker(UnpackingChannel(0, progress, None, Counters()))
    accepted = threading.Event()
    use = threading.Thread(target=_use, args=(unpacker, further.ours, accepted))
    connection, thread = carried(ends, Pumps(inward=unpacker.pump, wake=unpacker.wake))
    use.start()
    assert accepted.wait(WAIT_S)
    first.theirs.sendall(END)
    wait_for(lambda: unpacker._turns._streams == 1)
    assert thread.is_alive()
    assert broken(connection, thread)
    use.join(WAIT_S)
    assert not use.is_alive()


def _use(unpacker: Unpacker, sock: socket.socket, accepted: threading.Event) -> None:
    with pytest.raises(WireError, match="without an end frame"):
        unpacker.use(PlainStream(sock), accepted.set)
