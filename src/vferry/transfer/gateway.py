"""What the two gateways of a migration have in common; see `sending` and `receiving`."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from vferry.transfer.connection import Connection
from vferry.transfer.endpoint import TcpAddress, TcpListener, UnixListener, tune_tcp
from vferry.transfer.statistics import Statistics
from vferry.transfer.stream import PlainStream, Stream, TlsStream, close, wake
from vferry.transfer.tls import IdentityError, handshake
from vferry.transfer.wire import WireError

STOP_S = 5.0

Log = Callable[[str], None]
# A host name that cannot be one is a ValueError.
FAILURES = (OSError, WireError, IdentityError, ValueError)


class Security(NamedTuple):
    """Whom to talk to: with no context in plaintext, and then `peer` means nothing. An empty token is none."""

    context: ssl.SSLContext | None
    peer: str
    token: bytes = b""


class Gateway:
    """What both roles share: the threads, the connections that are open, their end.

    `handshake_s` bounds the TLS handshake, and the hello after it. QEMU opens at most 255 channels, its main
    connection and one for post-copy, libvirt one: more than `connection_limit` at once are refused.
    """

    handshake_s = 10.0
    connection_limit = 260

    role: str

    def __init__(
        self, address: TcpAddress, services: Mapping[str, Path], security: Security, peer_timeout_s: int, log: Log
    ) -> None:
        self.address = address
        self.services = dict(services)
        self.statistics = Statistics()
        self._security = security
        self._peer_timeout_s = peer_timeout_s
        self._log = log
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._connections: set[Connection] = set()
        self._opening: set[socket.socket] = set()
        self._listeners: list[UnixListener | TcpListener] = []

    def start(self) -> None:
        """Listen; raises `Problem`."""
        raise NotImplementedError

    def stop(self) -> None:
        """Close everything at once, with a reset; return when no thread is left, or after 5 s."""
        self._stopping.set()
        for listener in self._listeners:
            listener.close()
        with self._lock:
            for connection in self._connections:
                connection.abort("the gateway was stopped", cut=True)
            for sock in self._opening:
                wake(sock)
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline:
            with self._lock:
                thread = next(iter(self._threads), None)
            if thread is None:
                return
            thread.join(max(0.0, deadline - time.monotonic()))

    def tick(self) -> None:
        """Break the connections whose peer is dead; call about once a second."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.check_peer()

    def _accept(self, listener: UnixListener | TcpListener, serve: Callable[[socket.socket, str], None]) -> None:
        """Give each connection to `serve`, in order of arrival, until the listener is closed."""
        while not self._stopping.is_set():
            try:
                sock, address = listener.socket.accept()
            except OSError as error:
                if not self._stopping.is_set():
                    self._log(f"cannot accept a connection: {error}")
                    self._stopping.wait(0.1)  # out of files: the others may close some
                continue
            with self._lock:
                full = len(self._threads) >= self.connection_limit + len(self._listeners)
            where = f"{address[0]}:{address[1]}" if address else "the local socket"
            if full:
                self._refuse(sock, where, f"{self.connection_limit} connections are open already")
            else:
                self._replace_opening(sock, sock)
                try:
                    serve(sock, where)
                except Exception as error:  # whatever it is: the next ones would wait for ever
                    self._refuse(sock, where, repr(error))

    def _spawn(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread that `stop` waits for; raises RuntimeError if there can be no more threads."""

        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name=name, daemon=True)
        with self._lock:  # `stop` joins only what is started, and `run` takes itself out only after it is in
            thread.start()
            self._threads.add(thread)

    def _wrap(self, sock: socket.socket, *, server: bool) -> socket.socket:
        """Prepare a TCP connection for TLS, if there is any, without a handshake; takes `sock` over."""
        context, peer, _ = self._security
        if context is None:
            return sock
        name = None if server else peer
        wrapped = context.wrap_socket(sock, server_side=server, server_hostname=name, do_handshake_on_connect=False)
        self._replace_opening(sock, wrapped)
        return wrapped

    def _secure(self, sock: socket.socket) -> Stream:
        """Set options, shake hands, check the identity; raises one of `FAILURES`."""
        tune_tcp(sock, self._peer_timeout_s)
        if not isinstance(sock, ssl.SSLSocket):
            return PlainStream(sock)
        handshake(sock, self._security.peer, self.handshake_s)
        return TlsStream(sock)

    def _replace_opening(self, old: socket.socket, new: socket.socket | None) -> None:
        with self._lock:
            self._opening.discard(old)
            if new is not None:
                self._opening.add(new)
                if self._stopping.is_set():
                    wake(new)

    def _carry(self, connection: Connection, *sockets: socket.socket) -> None:
        """Carry a connection to its end; `sockets` are its own and no longer opening."""
        with self._lock:
            self._opening.difference_update(sockets)
            self._connections.add(connection)
            if self._stopping.is_set():
                connection.abort("the gateway was stopped", cut=True)
        self.statistics.opened(connection)
        connection.carry()
        with self._lock:
            self._connections.discard(connection)
        self.statistics.closed(connection)
        if connection.error is not None:
            self._log(
                f"{connection.service}: connection broken after {connection.sent} bytes sent"
                f" and {connection.received} received: {connection.error}"
            )
        connection.close()

    def _refuse(self, sock: socket.socket, where: str, reason: object) -> None:
        self.statistics.refused()
        if not self._stopping.is_set():
            self._log(f"refused the connection from {where}: {reason}")
        self._replace_opening(sock, None)
        wake(sock)
        close(sock, reset=True)
