"""The gateway of the destination: from the sending gateway to local unix sockets."""

import hmac
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from vferry.transfer.connection import Connection
from vferry.transfer.endpoint import TcpAddress, TcpListener, connect_unix
from vferry.transfer.gateway import FAILURES, Gateway, Log, Security
from vferry.transfer.stream import PlainStream, Stream, read_exactly
from vferry.transfer.wire import (
    HELLO,
    Hello,
    Reply,
    Status,
    VersionError,
    WireError,
    hello_body_size,
    pack_reply,
    unpack_hello,
)


class ReceivingGateway(Gateway):
    """Listens on a TCP port for the sending gateway and connects to the services' unix sockets."""

    role = "receive"

    def __init__(
        self,
        address: TcpAddress,
        services: Mapping[str, Path],
        security: Security,
        *,
        log: Log,
        peer_timeout_s: int = 15,
    ) -> None:
        super().__init__(address, services, security, peer_timeout_s, log)

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
            hello = self._read_hello(peer)
            local = self._admit(hello, peer)
        except FAILURES as error:
            self._refuse(sock, where, error)
            return
        peer.limit(None)
        connection = Connection(hello.service, PlainStream(local), peer, self._peer_timeout_s)
        self._carry(connection, sock)

    def _read_hello(self, peer: Stream) -> Hello:
        deadline = time.monotonic() + self.handshake_s
        header = read_exactly(peer, HELLO.size, deadline)
        try:
            size = hello_body_size(header)
        except VersionError as error:
            raise _refusal(peer, Status.OTHER_VERSION, f"{error}: install the same vferry on both hosts") from error
        return unpack_hello(header, read_exactly(peer, size, deadline))

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
        peer.limit(self.handshake_s)
        try:
            peer.send(pack_reply(Reply(Status.ACCEPTED)))
        except OSError:
            local.close()
            raise
        return local


def _refusal(peer: Stream, status: Status, reason: str) -> WireError:
    """Tell the peer, wait up to a second for it to close, so that the reset does not overtake the reply."""
    try:
        peer.limit(1.0)
        peer.send(pack_reply(Reply(status)))
        peer.end()
        peer.recv_into(memoryview(bytearray(1)))
    except OSError:
        pass
    return WireError(reason)
