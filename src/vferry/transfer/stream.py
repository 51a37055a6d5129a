"""Byte streams that two threads use at once, one reading and one writing: plain sockets and TLS."""

import select
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from typing import Protocol

from vferry.transfer.wire import WireError

RESET = struct.pack("ii", 1, 0)


class Stream(Protocol):
    """What the pumps need. Every method but `close` may be called from any thread; errors are OSErrors."""

    socket: socket.socket
    bare: bool
    """Whether its bytes are those of the socket, and nobody else looks at them: then the kernel may move them."""

    def limit(self, seconds: float | None) -> None:
        """Let each later call wait at most so long before it raises TimeoutError; None waits for ever."""

    def recv_into(self, buffer: memoryview, *, whole: bool = False) -> int:
        """Wait for bytes and return how many came: whatever is there, without waiting for more. 0 is the end.

        `whole` waits for more, until the buffer is full, the stream ends, or the socket's own SO_RCVTIMEO is over.
        """

    def send(self, data: memoryview | bytes) -> None:
        """Hand all of `data` to the kernel."""

    def end(self) -> None:
        """Send no more; reading goes on."""

    def wake(self) -> None:
        """Make reads and writes that wait in other threads return, and all later ones fail."""

    def close(self, *, reset: bool) -> None:
        """Close; with `reset`, TCP tells the other side that this is no clean end."""


class PlainStream:
    """A socket as it is."""

    bare = True

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    def limit(self, seconds: float | None) -> None:
        self.socket.settimeout(seconds)

    def recv_into(self, buffer: memoryview, *, whole: bool = False) -> int:
        return self.socket.recv_into(buffer, 0, socket.MSG_WAITALL if whole else 0)

    def send(self, data: memoryview | bytes) -> None:
        self.socket.sendall(data)

    def end(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def wake(self) -> None:
        wake(self.socket)

    def close(self, *, reset: bool) -> None:
        close(self.socket, reset=reset)


class HeldStream(PlainStream):
    """A local socket whose process ends the connection itself: an end that comes from the wire first is a loss.

    To the process at its other end, a libvirt that was killed looks like one that has finished.
    """

    bare = False

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._ended = False

    def recv_into(self, buffer: memoryview, *, whole: bool = False) -> int:
        size = super().recv_into(buffer, whole=whole)
        self._ended = self._ended or not size
        return size

    def end(self) -> None:
        if not self._ended:
            raise WireError("the other side ended it first")
        super().end()


class TlsStream:
    """TLS after its handshake.

    OpenSSL does not allow a read and a write of the same connection at the same time, so both happen under a
    lock, without blocking; the waiting is outside of it.
    """

    bare = False

    def __init__(self, sock: ssl.SSLSocket) -> None:
        sock.settimeout(0)
        self.socket: socket.socket = sock
        self._lock = threading.Lock()
        self._limit_s: float | None = None

    def limit(self, seconds: float | None) -> None:
        self._limit_s = seconds

    def recv_into(self, buffer: memoryview, *, whole: bool = False) -> int:
        total = 0
        while total < len(buffer):  # a read returns one record of 16 KiB; take the ones that are there together
            try:
                with self._lock:
                    size = self.socket.recv_into(buffer[total:])
            except OSError as error:
                if total and not whole:
                    break  # what came goes on first; the error will be there again
                self._wait(error)
                continue
            if not size:
                break
            total += size
        return total

    def send(self, data: memoryview | bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                with self._lock:
                    size = self.socket.send(rest)
            except OSError as error:
                self._wait(error)
            else:
                rest = rest[size:]

    def end(self) -> None:
        # Not SSLSocket.shutdown: it drops TLS, and a read in another thread would go on in ciphertext.
        socket.socket.shutdown(self.socket, socket.SHUT_WR)

    def wake(self) -> None:
        wake(self.socket)

    def close(self, *, reset: bool) -> None:
        close(self.socket, reset=reset)

    def _wait(self, error: OSError) -> None:
        """Wait for what TLS wants; raises `error` if it wants nothing."""
        if isinstance(error, ssl.SSLWantReadError):
            event = select.POLLIN
        elif isinstance(error, ssl.SSLWantWriteError):
            event = select.POLLOUT
        else:
            raise error
        poll = select.poll()
        poll.register(self.socket, event)
        if not poll.poll(None if self._limit_s is None else self._limit_s * 1000):
            raise TimeoutError("timed out")


def wake(sock: socket.socket) -> None:
    """Shut both directions of a socket down, TLS or not, if it is still connected."""
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def close(sock: socket.socket, *, reset: bool) -> None:
    """Close a socket.

    With `reset` a TCP peer sees ECONNRESET. Linux has no reset for unix sockets: the peer's write fails with
    EPIPE, its read with ECONNRESET if it had written bytes not yet read here, and ends otherwise.
    """
    if reset:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def read_exactly(stream: Stream, size: int, deadline: float) -> bytes:
    """Read `size` bytes until `deadline` on the monotonic clock; raises OSError, `WireError` if they do not come."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("timed out")
        stream.limit(remaining)
        count = stream.recv_into(view)
        if not count:
            raise WireError("the connection ended early")
        view = view[count:]
    return bytes(data)
