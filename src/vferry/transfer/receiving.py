"""The gateway of the destination: from the sending gateway to local unix sockets."""

import hmac
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vferry.model.compression import DELTA_MIB
from vferry.transfer.compression import MIB, receiver_sessions
from vferry.transfer.connection import Connection
from vferry.transfer.endpoint import TcpAddress, TcpListener, connect_unix
from vferry.transfer.gateway import FAILURES, Gateway, Log, Security
from vferry.transfer.place import Place
from vferry.transfer.pump import AS_IS, Pumps
from vferry.transfer.stream import PlainStream, Stream, read_exactly
from vferry.transfer.wire import (
    HELLO,
    Carriage,
    Hello,
    Reply,
    Status,
    VersionError,
    WireError,
    hello_body_size,
    pack_reply,
    unpack_hello,
)

if TYPE_CHECKING:
    from vferry.transfer.sessions import ReceiverSessions
    from vferry.transfer.unpacking import Unpacker


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
        delta_bytes: int = DELTA_MIB * MIB,
        resident: Sequence[Place] = (),
    ) -> None:
        """`delta_bytes` bounds the page copies that the sender may ask for, and those of what is `resident` here."""
        super().__init__(address, services, security, peer_timeout_s, log)
        self._delta_bytes = delta_bytes
        self._resident = resident
        self._sessions: ReceiverSessions | None = None
        self._sessions_lock = threading.Lock()

    def start(self) -> None:
        """Listen, and set `address` to what was really taken; raises `Problem`.

        Before, copy what is resident here: some seconds, if it is much.
        """
        if self._resident:
            self._gather()
        listener = TcpListener(self.address)
        self.address = listener.address
        self._listeners.append(listener)
        self._spawn("accept", lambda: self._accept(listener, self._serve))
        if self._delta_bytes:
            self._spawn("prepare", self._prepare)

    def _gather(self) -> None:
        """Copying nothing is no reason not to serve."""
        try:
            self._prepared()
        except (OSError, ImportError) as error:
            self._log(f"no resident pages: {error}")
            self._resident = ()

    def _prepare(self) -> None:
        """Load what undoes compression before somebody waits for it."""
        with suppress(ImportError):
            self._prepared()

    def _prepared(self) -> "ReceiverSessions":
        """What undoes compression; raises ImportError where the libraries are missing."""
        with self._sessions_lock:
            if self._sessions is None:
                self._sessions = receiver_sessions(self._delta_bytes, self.statistics, self._resident)
            return self._sessions

    def _serve(self, sock: socket.socket, where: str) -> None:
        self._spawn("receive", lambda: self._receive(sock, where))

    def _receive(self, sock: socket.socket, where: str) -> None:
        try:
            sock = self._wrap(sock, server=True)
            peer = self._secure(sock)
            hello = self._read_hello(peer)
            self._check_token(hello, peer)
            if hello.stream:
                self._carry_further(self._find(hello), peer)
                return
            local, pumps = self._admit(hello, peer)
        except FAILURES as error:
            self._refuse(sock, where, error)
            return
        connection = Connection(hello.service, PlainStream(local), peer, self._peer_timeout_s, pumps=pumps)
        try:
            self._carry(connection, sock)
        finally:
            self._leave(hello)

    def _find(self, hello: Hello) -> "Unpacker":
        """The open connection that a further stream is for; raises `WireError`."""
        if self._sessions is None:
            raise WireError("a stream for a connection that is not open")
        return self._sessions.find(hello)

    def _carry_further(self, unpacker: "Unpacker", peer: Stream) -> None:
        """Use a further stream of an open connection, to its end. When it breaks, so does the connection."""
        failed = True
        try:
            peer.limit(None)
            unpacker.use(peer, lambda: peer.send(pack_reply(Reply(Status.ACCEPTED))))
            failed = False
        except FAILURES as error:
            self._log(f"a stream is broken: {error}")
        finally:
            self._replace_opening(peer.socket, None)
            peer.close(reset=failed)

    def _read_hello(self, peer: Stream) -> Hello:
        deadline = time.monotonic() + self.handshake_s
        header = read_exactly(peer, HELLO.size, deadline)
        try:
            size = hello_body_size(header)
        except VersionError as error:
            raise _refusal(peer, Status.OTHER_VERSION, f"{error}: install the same vferry on both hosts") from error
        return unpack_hello(header, read_exactly(peer, size, deadline))

    def _check_token(self, hello: Hello, peer: Stream) -> None:
        if not hmac.compare_digest(hello.token, self._security.token):
            raise _refusal(peer, Status.WRONG_TOKEN, "wrong token")

    def _admit(self, hello: Hello, peer: Stream) -> tuple[socket.socket, Pumps]:
        """Connect to the service that the hello asks for and say so, or refuse with one of `FAILURES`."""
        path = self.services.get(hello.service)
        if path is None:
            raise _refusal(peer, Status.UNKNOWN_SERVICE, f"no service {hello.service!r} here")
        try:
            local = connect_unix(path, self._stopping.wait)
        except OSError as error:
            raise _refusal(peer, Status.UNREACHABLE, f"cannot connect to unix:{path}: {error}") from error
        try:
            return local, self._accept_hello(hello, peer)
        except BaseException:
            local.close()
            raise

    def _accept_hello(self, hello: Hello, peer: Stream) -> Pumps:
        """Say yes; raises one of `FAILURES`."""
        reply, pumps = Reply(Status.ACCEPTED), AS_IS
        if hello.carriage is Carriage.BLOCKS:
            reply, pumps = self._join(hello, peer)
        try:
            peer.limit(self.handshake_s)
            peer.send(pack_reply(reply))
            peer.limit(None)
        except BaseException:
            self._leave(hello)
            raise
        return pumps

    def _join(self, hello: Hello, peer: Stream) -> tuple[Reply, Pumps]:
        try:
            sessions = self._prepared()
        except ImportError as error:
            raise _refusal(peer, Status.NO_BLOCKS, f"{error}: install vferry[compression]") from error
        reply, unpacker = sessions.join(hello)
        return reply, Pumps(inward=unpacker.pump, wake=unpacker.wake)

    def _leave(self, hello: Hello) -> None:
        if self._sessions and hello.carriage is Carriage.BLOCKS:
            self._sessions.leave(hello)


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
