"""The two roles of a migration's gateway pair, on the source (send) and on the destination (receive)."""

import hmac
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from vferry.transfer.connection import Connection
from vferry.transfer.endpoint import (
    CONNECT_S,
    DEFAULT_SERVICE,
    ROOT_ONLY,
    Owner,
    TcpAddress,
    TcpListener,
    UnixListener,
    connect_tcp,
    connect_unix,
    tune_tcp,
)
from vferry.transfer.statistics import Statistics
from vferry.transfer.stream import PlainStream, Stream, TlsStream, close, read_exactly, wake
from vferry.transfer.tls import IdentityError, handshake
from vferry.transfer.wire import (
    HELLO,
    REPLY,
    Hello,
    Status,
    WireError,
    hello_body_size,
    pack_hello,
    pack_reply,
    unpack_hello,
    unpack_reply,
)

HANDSHAKE_S = 10.0
REPLY_S = HANDSHAKE_S + CONNECT_S
# QEMU opens at most 255 channels, its main connection and one for post-copy; libvirt opens one.
CONNECTION_LIMIT = 260
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
    """What both roles share: the threads, the connections that are open, their end."""

    def __init__(self, security: Security, peer_timeout_s: int, log: Log) -> None:
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
            threads = list(self._threads)
        deadline = time.monotonic() + STOP_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def check_peers(self) -> None:
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
                full = len(self._threads) >= CONNECTION_LIMIT + len(self._listeners)
                if not full:
                    self._opening.add(sock)
            where = f"{address[0]}:{address[1]}" if address else "the local socket"
            if full:
                self._refuse(sock, where, f"{CONNECTION_LIMIT} connections are open already")
            else:
                serve(sock, where)

    def _spawn(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread that `stop` waits for; raises RuntimeError if there can be no more threads."""

        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name=name, daemon=True)
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            with self._lock:
                self._threads.discard(thread)
            raise

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
        handshake(sock, self._security.peer, HANDSHAKE_S)
        return TlsStream(sock)

    def _replace_opening(self, old: socket.socket, new: socket.socket | None) -> None:
        with self._lock:
            self._opening.discard(old)
            if new is not None:
                self._opening.add(new)
            if new is not None and self._stopping.is_set():
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


class SendingGateway(Gateway):
    """Listens on a unix socket for each service and connects to the receiving gateway."""

    def __init__(
        self,
        services: Mapping[str, Path],
        receiver: TcpAddress,
        security: Security,
        *,
        log: Log,
        peer_timeout_s: int = 15,
        memory_owner: Owner = ROOT_ONLY,
    ) -> None:
        super().__init__(security, peer_timeout_s, log)
        self.services = dict(services)
        self.address = receiver
        self._memory_owner = memory_owner

    def start(self) -> None:
        """Listen; raises `Problem`."""
        try:
            for service, path in self.services.items():
                owner = self._memory_owner if service == DEFAULT_SERVICE else ROOT_ONLY
                listener = UnixListener(path, owner)
                self._listeners.append(listener)
                self._listen(service, listener)
        except BaseException:
            self.stop()
            raise

    def _listen(self, service: str, listener: UnixListener) -> None:
        def serve(local: socket.socket, _where: str) -> None:
            self._forward(service, local)

        self._spawn(f"{service}-accept", lambda: self._accept(listener, serve))

    def _forward(self, service: str, local: socket.socket) -> None:
        """Open the way to the receiver, then carry in threads of its own.

        The next connection of this service waits until this one has reached its destination: QEMU before 8.0
        tells its channels by their order, and so does its post-copy channel to this day.
        """
        try:
            peer = self._open(service)
        except FAILURES as error:
            self._refuse(local, service, f"no way through {self.address}: {error}")
            return
        connection = Connection(service, PlainStream(local), peer, self._peer_timeout_s)
        try:
            self._spawn(f"{service}-out", lambda: self._carry(connection, local, peer.socket))
        except RuntimeError as error:
            self._replace_opening(peer.socket, None)
            peer.close(reset=True)
            self._refuse(local, service, error)

    def _open(self, service: str) -> Stream:
        """Connect to the receiver and have it connect to its service; raises one of `FAILURES`."""
        bare = connect_tcp(self.address)
        bare.settimeout(None)
        self._replace_opening(bare, bare)
        sock = bare
        try:
            sock = self._wrap(bare, server=False)
            peer = self._secure(sock)
            peer.limit(HANDSHAKE_S)
            peer.send(pack_hello(Hello(service, self._security.token)))
            status = unpack_reply(read_exactly(peer, REPLY.size, time.monotonic() + REPLY_S))
            if status is not Status.ACCEPTED:
                raise WireError(f"the receiving gateway refuses: {status.name.lower().replace('_', ' ')}")
            peer.limit(None)
        except BaseException:
            self._replace_opening(sock, None)
            close(sock, reset=True)
            raise
        return peer


class ReceivingGateway(Gateway):
    """Listens on a TCP port for the sending gateway and connects to the services' unix sockets."""

    def __init__(
        self,
        address: TcpAddress,
        services: Mapping[str, Path],
        security: Security,
        *,
        log: Log,
        peer_timeout_s: int = 15,
    ) -> None:
        super().__init__(security, peer_timeout_s, log)
        self.services = dict(services)
        self.address = address

    def start(self) -> None:
        """Listen, and set `address` to what was really taken; raises `Problem`."""
        listener = TcpListener(self.address)
        self.address = listener.address
        self._listeners.append(listener)
        self._spawn("accept", lambda: self._accept(listener, self._serve))

    def _serve(self, sock: socket.socket, where: str) -> None:
        try:
            self._spawn("receive", lambda: self._receive(sock, where))
        except RuntimeError as error:
            self._refuse(sock, where, error)

    def _receive(self, sock: socket.socket, where: str) -> None:
        try:
            sock = self._wrap(sock, server=True)
            peer = self._secure(sock)
            hello = _read_hello(peer)
            local = self._admit(hello, peer)
        except FAILURES as error:
            self._refuse(sock, where, error)
            return
        peer.limit(None)
        connection = Connection(hello.service, PlainStream(local), peer, self._peer_timeout_s)
        self._carry(connection, sock)

    def _admit(self, hello: Hello, peer: Stream) -> socket.socket:
        """Connect to the service that the hello asks for and say so, or refuse with one of `FAILURES`."""
        path = self.services.get(hello.service)
        if not hmac.compare_digest(hello.token, self._security.token):
            raise _refusal(peer, Status.WRONG_TOKEN, "wrong token")
        if path is None:
            raise _refusal(peer, Status.UNKNOWN_SERVICE, f"no service {hello.service!r} here")
        try:
            local = connect_unix(path, self._stopping.wait)
        except OSError as error:
            raise _refusal(peer, Status.UNREACHABLE, f"cannot connect to unix:{path}: {error}") from error
        peer.limit(HANDSHAKE_S)
        try:
            peer.send(pack_reply(Status.ACCEPTED))
        except OSError:
            local.close()
            raise
        return local


def _read_hello(peer: Stream) -> Hello:
    deadline = time.monotonic() + HANDSHAKE_S
    header = read_exactly(peer, HELLO.size, deadline)
    return unpack_hello(header, read_exactly(peer, hello_body_size(header), deadline))


def _refusal(peer: Stream, status: Status, reason: str) -> WireError:
    """Tell the peer, wait up to a second for it to close, so that the reset does not overtake the reply."""
    try:
        peer.limit(1.0)
        peer.send(pack_reply(status))
        peer.end()
        peer.recv_into(memoryview(bytearray(1)))
    except OSError:
        pass
    return WireError(reason)
