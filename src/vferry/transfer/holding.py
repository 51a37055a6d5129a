"""What a gateway's streams may hold back at the moment, by what the kernel says of their sockets."""

import math
import socket
import struct
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from vferry.transfer.allowance import Allowance, Seen, allow, learn

# tcpi_bytes_acked and tcpi_notsent_bytes of struct tcp_info, which Linux only ever extends at its end.
TCP_INFO = struct.Struct("=120xQ16xI")


class _Queue(NamedTuple):
    """Of a socket: bytes that have arrived so far, and those that are not under way yet."""

    arrived_bytes: int
    unsent_bytes: int


class Holding:
    """Shares the link among the streams to the other gateway. `tick` belongs to one thread, the rest to any."""

    def __init__(self) -> None:
        self._allowed = Allowance()
        self._lock = threading.Lock()
        self._queues: dict[socket.socket, _Queue] = {}
        self._rate = math.inf
        self._ticked = time.monotonic()

    def allowed(self) -> Allowance:
        """What each stream may hold at the moment."""
        return self._allowed

    def add(self, *sockets: socket.socket) -> None:
        """Take streams in, which are connected."""
        with self._lock:
            self._queues.update((sock, queue) for sock in sockets if (queue := _queue(sock)))

    def remove(self, *sockets: socket.socket) -> None:
        """Leave streams out that have ended."""
        with self._lock:
            for sock in sockets:
                self._queues.pop(sock, None)

    def tick(self) -> None:
        """Measure, and allow anew; call about once a second."""
        now = time.monotonic()
        with self._lock:
            before, self._queues = self._queues, {sock: queue for sock in self._queues if (queue := _queue(sock))}
            seen = [
                Seen(queue.arrived_bytes - before[sock].arrived_bytes, queue.unsent_bytes)
                for sock, queue in self._queues.items()
            ]
            self._rate = learn(self._rate, seen, self._allowed, now - self._ticked)
            self._allowed = allow(self._rate, sum(stream.busy for stream in seen))
            _limit(self._queues, self._allowed.unsent_bytes)
        self._ticked = now


def _queue(sock: socket.socket) -> _Queue | None:
    """None for a socket that is closed."""
    try:
        return _Queue(*TCP_INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)))
    except OSError:
        return None


def _limit(sockets: Iterable[socket.socket], unsent_bytes: int) -> None:
    for sock in sockets:
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent_bytes)
