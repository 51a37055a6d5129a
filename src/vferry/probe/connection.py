"""The watched TCP connection: writes numbered records on a fixed schedule, and follows what is echoed."""

import os
import secrets
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from vferry.probe.stream import RECORD, Content, Echo, retransmissions

MS = 1_000_000
SECOND = 1000 * MS
INTERVAL = 20 * MS
# Waking up later than planned by more than this is the prober's own stall.
STALL = 20 * MS
# A kernel sends again after twice the time each time: so a silent connection is known to live, or not, after as long
# again as it has been silent. Nobody waits longer than this for it.
PATIENCE = 30 * SECOND
CONNECT_S = 5.0
CHUNK = 64 * 1024
CLOSED = "the other side closed it"
NO_ECHO = "the other side sent more than it got, so it is no echo service"


def connect(address: str, port: int) -> socket.socket:
    """A connection whose small records leave at once. Raises OSError, after `CONNECT_S` at the latest."""
    numeric = socket.AI_NUMERICHOST
    family, kind, protocol, _, to = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=numeric)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(CONNECT_S)
        sock.connect(to)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(0)
    except OSError:
        sock.close()
        raise
    return sock


class ConnectionWatch:
    """Measures until `stdin` says so or closes, `stop` is called or the connection ends.

    `emit` gets a line each second. At the end it waits up to a second for the echoes that are due, and if `stdin` is
    still open, longer for a connection that is silent. It keeps no record that it has written, so its memory does not
    grow.
    """

    def __init__(self, sock: socket.socket, emit: Callable[[dict[str, Any]], None], stdin: int | None = None) -> None:
        self._socket, self._emit = sock, emit
        self._stdin = [] if stdin is None else [stdin]
        self._content = Content(secrets.token_bytes(16))
        self._echo = Echo(self._content)
        self._stopped = self._patient = False
        self._taken = 0
        self._rest = b""
        self._last = self._last_excess = 0
        self._excess = self._stall_max = 0
        self._longest, self._longest_at = 0, 0
        self._ended: str | None = None
        self._ended_at: int | None = None

    def stop(self) -> None:
        """Ends the measurement."""
        self._stopped = True

    def run(self) -> None:
        """The loop; the socket stays the caller's."""
        due = self._last = told = time.monotonic_ns()
        while not self._stopped and self._ended is None:
            now = self._wait(due)
            if now >= due:
                self._write()
                # What a stall of our own kept from being written is given up, not made up for in a burst.
                due = due + INTERVAL if now - due < INTERVAL else now + INTERVAL
            if now - told >= SECOND:
                told = now
                self._tell("live", now)
        self._finish()

    def _wait(self, due: int) -> int:
        """Waits for an echo until `due`, and takes it; returns the time at which it woke up."""
        ready = self._ready(due)
        now = time.monotonic_ns()
        late = now - due
        if late > STALL:
            self._excess += late
            self._stall_max = max(self._stall_max, late)
        if ready:
            self._read(now)
        return now

    def _ready(self, until: int) -> bool:
        """Waits, at most until then, for something to read from the socket, or for word from whoever started it."""
        files = [self._socket.fileno(), *self._stdin]
        ready, _, _ = select.select(files, [], [], max(0, until - time.monotonic_ns()) / SECOND)
        for stdin in self._stdin:
            if stdin in ready:
                self._stopped, self._patient = True, bool(os.read(stdin, 64))
        if self._stopped and not self._patient:
            self._stdin = []  # closed, it would be ready for ever
        return files[0] in ready

    def _read(self, now: int) -> None:
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.strerror or str(error), now)
            return
        if not data:
            self._end(CLOSED, now)
        elif self._echo.received + len(data) > self._taken:
            self._end(NO_ECHO, now)
        elif self._echo.take(data):
            self._note_gap(now)
            self._last, self._last_excess = now, self._excess

    def _write(self) -> None:
        """Writes the next record, or the rest of one for which the socket had no room."""
        data = self._rest or self._content.record(self._taken // RECORD)
        try:
            written = self._socket.send(data)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.strerror or str(error), time.monotonic_ns())
            return
        self._rest = data[written:]
        self._taken += written

    def _end(self, why: str, now: int) -> None:
        self._ended, self._ended_at = why, now

    def _note_gap(self, until: int) -> None:
        """Without the prober's own stalls: what remains is never more than what the network and the guest did."""
        length = until - self._last - (self._excess - self._last_excess)
        if length > self._longest:
            self._longest, self._longest_at = length, self._last

    def _finish(self) -> None:
        stopped = self._ended_at or time.monotonic_ns()
        silent = min(stopped - self._last, PATIENCE)
        while self._ended is None and self._echo.received < self._taken:
            until = stopped + SECOND + (silent if self._patient else 0)
            if time.monotonic_ns() >= until:
                break
            if self._ready(until):
                self._read(time.monotonic_ns())
        self._tell("end", stopped)

    def _tell(self, event: str, now: int) -> None:
        self._note_gap(now)
        self._emit(
            {
                "event": event,
                "sent": self._taken // RECORD,
                "echoed": self._echo.echoed,
                "wrong": self._echo.wrong,
                "stall_ns": self._longest,
                "stall_at": self._longest_at,
                "self_stall_ns": self._stall_max,
                "retransmissions": retransmissions(self._socket),
                "ended": self._ended,
                "ended_at": self._ended_at,
            }
        )
