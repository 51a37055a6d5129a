"""Bytes that are passed on as they are, through the kernel's pipe and by copying: frames of them, and their ends."""

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vferry.transfer.allowance import BLOCK_BYTES, Allowance
from vferry.transfer.passage import HELD_BYTES, CopiedPassage, SplicedPassage, passage
from vferry.transfer.pump import give_all, pump_inward, pump_outward
from vferry.transfer.stream import HeldStream, PlainStream, wake
from vferry.transfer.wire import END, FRAME, FRAME_LIMIT, WireError


class Watched(PlainStream):
    """A socket whose bytes the kernel may not move by itself."""

    bare = False


class Ways:
    """Two connections: what is written to `near` comes out of `source`, what goes into `target` out of `out`.

    Outward the one is a unix socket and the other TCP, inward the other way round.
    """

    def __init__(self, kind: type[PlainStream], stack: ExitStack, *, inward: bool) -> None:
        unix, tcp = socket.socketpair(), _tcp(stack)
        for sock in unix:
            stack.enter_context(sock)
        (self.near, source), (self.out, target) = (tcp, unix) if inward else (unix, tcp)
        self.source, self.target = kind(source), kind(target)
        self.counted = 0

    def count(self, size: int) -> None:
        self.counted += size


def _tcp(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = stack.enter_context(socket.create_connection(server.getsockname()))
        return one, stack.enter_context(server.accept()[0])


@pytest.fixture(params=[(PlainStream, False), (PlainStream, True), (Watched, True)])
def ways(request: pytest.FixtureRequest) -> Iterator[Ways]:
    kind, inward = request.param
    with ExitStack() as stack:
        yield Ways(kind, stack, inward=inward)


def received(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


@pytest.mark.parametrize("kind", [PlainStream, HeldStream])
@pytest.mark.parametrize("inward", [False, True])
def test_only_bare_sockets_are_spliced_and_only_towards_a_process(kind: type[PlainStream], *, inward: bool) -> None:
    with ExitStack() as stack:
        ways = Ways(kind, stack, inward=inward)
        with passage(ways.source, ways.target) as way:
            assert isinstance(way, SplicedPassage if inward and kind is PlainStream else CopiedPassage)


@pytest.mark.parametrize(("allowed", "most"), [(BLOCK_BYTES, HELD_BYTES), (20_000, 20_000)])
def test_frames_come_out_as_they_were_written(ways: Ways, allowed: int, most: int) -> None:
    data = os.urandom(3 * HELD_BYTES + 1)
    writing = threading.Thread(target=_write, args=(ways.near, data))
    writing.start()
    there = (ways.source, ways.target, ways.count, lambda: Allowance(0, allowed))
    pumping = threading.Thread(target=pump_outward, args=there)
    pumping.start()
    found = bytearray()
    while (head := ways.out.recv(FRAME.size, socket.MSG_WAITALL)) != END:
        (size,) = FRAME.unpack(head)
        assert size <= most
        found += ways.out.recv(size, socket.MSG_WAITALL)
    writing.join()
    pumping.join()
    assert found == data
    assert ways.counted == len(data)


payload_lists = st.lists(st.binary(min_size=1, max_size=300), max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(payloads=payload_lists, cuts=st.lists(st.integers(min_value=0), max_size=6))
@pytest.mark.parametrize("kind", [PlainStream, Watched])
def test_frames_are_undone_however_they_come(kind: type[PlainStream], payloads: list[bytes], cuts: list[int]) -> None:
    data = b"".join(FRAME.pack(len(payload)) + payload for payload in payloads) + END
    with ExitStack() as stack:
        ways = Ways(kind, stack, inward=True)
        pumping = threading.Thread(target=pump_inward, args=(ways.source, ways.target, ways.count))
        pumping.start()
        begin = 0
        for end in sorted({cut % len(data) for cut in cuts} | {len(data)}):
            ways.near.sendall(data[begin:end])
            begin = end
        assert received(ways.out) == b"".join(payloads)
        pumping.join()
        assert ways.counted == len(b"".join(payloads))


@pytest.mark.parametrize("data", [b"", b"\0\0", FRAME.pack(5), FRAME.pack(5) + b"four"])
def test_frames_that_are_cut_off_are_an_error(ways: Ways, data: bytes) -> None:
    ways.near.sendall(data)
    ways.near.shutdown(socket.SHUT_WR)
    with pytest.raises(WireError, match="without an end frame"):
        pump_inward(ways.source, ways.target, ways.count)


@pytest.mark.parametrize("size", [0, FRAME_LIMIT + 1, 2**32 - 2])
def test_a_frame_out_of_bounds_is_an_error(ways: Ways, size: int) -> None:
    ways.near.sendall(FRAME.pack(size))
    with pytest.raises(WireError, match="not of 1 to"):
        pump_inward(ways.source, ways.target, ways.count)


def test_a_source_that_pauses_is_waited_for(ways: Ways) -> None:
    """Though its socket gives up after a while: so does that of a connection that is compressed."""
    patience = struct.pack("ll", 0, 20_000)
    ways.source.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
    with passage(ways.source, ways.target) as way:
        passing = threading.Thread(target=give_all, args=(way, 2, ways.count))
        passing.start()
        for byte in (b"a", b"b"):
            time.sleep(0.1)
            ways.near.sendall(byte)
        passing.join()
    assert ways.out.recv(2, socket.MSG_WAITALL) == b"ab"


def test_a_target_that_is_gone_is_an_error_and_no_file_stays(ways: Ways) -> None:
    ways.out.close()
    feeding = threading.Thread(target=_feed, args=(ways.near,))
    feeding.start()
    with pytest.raises(OSError, match=r"[Bb]roken pipe|[Rr]eset"):
        pump_outward(ways.source, ways.target, ways.count)
    wake(ways.near)
    feeding.join()


def _write(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def _feed(sock: socket.socket) -> None:
    with suppress(OSError):
        while True:
            sock.sendall(bytes(HELD_BYTES))
