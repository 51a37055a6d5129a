"""Passing a connection's bytes on from one socket to another, as they are: at most `HELD_BYTES` of them at a time.

From a bare socket to the one of a local process they never come into this process: the kernel moves them through a pipe
(splice). Towards the other host they are copied, which takes no more of the processors (decision 18), and so they are
where one of the sockets has TLS, or somebody watches what goes through it.
"""

import fcntl
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from vferry.transfer.stream import Stream

# Larger was not faster; what is held counts as delivered to QEMU.
HELD_BYTES = 256 * 1024
HEAD_BYTES = 4096


class Passage(Protocol):
    """One direction of a connection; for one thread. Errors are OSErrors."""

    def take(self, most: int) -> int:
        """Wait for bytes of the source and take `most` of them or fewer; how many there are, 0 at the end."""

    def give(self, head: bytes = b"") -> None:
        """Hand the kernel all that was taken, behind a `head` of up to `HEAD_BYTES`."""


class CopiedPassage:
    """Through a buffer of this process, which has room for the head before what was taken."""

    def __init__(self, source: Stream, target: Stream) -> None:
        self._source = source
        self._target = target
        self._buffer = memoryview(bytearray(HEAD_BYTES + HELD_BYTES))
        self._end = HEAD_BYTES

    def take(self, most: int) -> int:
        room = self._buffer[HEAD_BYTES:][:most]
        size = _patiently(self._source, lambda: self._source.recv_into(room))
        self._end = HEAD_BYTES + size
        return size

    def give(self, head: bytes = b"") -> None:
        start = HEAD_BYTES - len(head)
        self._buffer[start:HEAD_BYTES] = head
        self._target.send(self._buffer[start : self._end])


class SplicedPassage:
    """Through a pipe."""

    def __init__(self, source: Stream, target: Stream) -> None:
        """Make the pipe; `close` it."""
        self._source = source
        self._target = target.socket
        self._held = 0
        self._exit, self._entrance = os.pipe()
        with suppress(PermissionError):  # who is not root may have so much in pipes and no more
            fcntl.fcntl(self._entrance, fcntl.F_SETPIPE_SZ, HELD_BYTES)

    def take(self, most: int) -> int:
        size = min(most, HELD_BYTES)
        self._held = _patiently(self._source, lambda: os.splice(self._source.socket.fileno(), self._entrance, size))
        return self._held

    def give(self, head: bytes = b"") -> None:
        if head:
            self._target.sendall(head, socket.MSG_MORE)
        while self._held:
            self._held -= os.splice(self._exit, self._target.fileno(), self._held)

    def close(self) -> None:
        os.close(self._entrance)
        os.close(self._exit)


@contextmanager
def passage(source: Stream, target: Stream) -> Iterator[Passage]:
    """The shortest way from one stream to the other; raises OSError where there can be no more files."""
    if not (source.bare and target.bare) or target.socket.family != socket.AF_UNIX:
        yield CopiedPassage(source, target)
        return
    spliced = SplicedPassage(source, target)
    try:
        yield spliced
    finally:
        spliced.close()


def _patiently(source: Stream, take: Callable[[], int]) -> int:
    """Take again, once there is something, where the socket's own SO_RCVTIMEO was over before anything came."""
    while True:
        try:
            return take()
        except BlockingIOError:
            arrivals = select.poll()
            arrivals.register(source.socket, select.POLLIN)
            arrivals.poll()
