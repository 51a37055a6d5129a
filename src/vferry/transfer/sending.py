"""The gateway of the source: from local unix sockets to the receiving gateway."""

import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vferry.transfer.compression import UNCOMPRESSED, Compression, sender_sessions
from vferry.transfer.connection import Connection
from vferry.transfer.endpoint import (
    CONNECT_S,
    DEFAULT_SERVICE,
    ROOT_ONLY,
    Owner,
    TcpAddress,
    UnixListener,
    connect_tcp,
)
from vferry.transfer.gateway import FAILURES, Gateway, Log, Security
from vferry.transfer.holding import Holding
from vferry.transfer.pump import Pumps, as_is
from vferry.transfer.stream import HeldStream, PlainStream, Stream, close, read_exactly
from vferry.transfer.wire import (
    PREAMBLE_BYTES,
    REPLY,
    Carriage,
    Hello,
    Reply,
    Status,
    VersionError,
    WireError,
    check_preamble,
    pack_hello,
    reply_body_size,
    unpack_reply,
)

RESIDENT_S = 60.0
"""How long the hashes of resident pages may take: 16 MiB at most."""


class Way(NamedTuple):
    """A stream to the receiver that has accepted `hello`, and how it is to be used."""

    peer: Stream
    hello: Hello
    pumps: Pumps
    more: Sequence[Stream] = ()
    """Further streams, which the outward pump uses and closes."""


class SendingGateway(Gateway):
    """Listens on a unix socket for each service and connects to the receiving gateway."""

    role = "send"

    def __init__(
        self,
        services: Mapping[str, Path],
        receiver: TcpAddress,
        security: Security,
        *,
        log: Log,
        peer_timeout_s: int = 15,
        memory_owner: Owner = ROOT_ONLY,
        hold: Iterable[str] = (),
        lost: Callable[[str], None] = lambda _service: None,
        compression: Compression = UNCOMPRESSED,
    ) -> None:
        """`hold` names services whose local process is not told when the wire breaks; `lost` is called then.

        Raises `Problem` codec-missing.
        """
        super().__init__(receiver, services, security, peer_timeout_s, log)
        self._streams = compression.streams
        self._sessions = sender_sessions(compression, self.statistics)
        self._memory_owner = memory_owner
        self._hold = frozenset(hold)
        self._lost = lost
        self._holding = Holding()

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

    def tick(self) -> None:
        super().tick()
        self._holding.tick()

    def _listen(self, service: str, listener: UnixListener) -> None:
        def serve(local: socket.socket, _where: str) -> None:
            self._forward(service, local)

        self._spawn(f"{service}-accept", lambda: self._accept(listener, serve))

    def _forward(self, service: str, local: socket.socket) -> None:
        """Open the way to the receiver, then carry in threads of its own.

        The next connection of this service waits until this one has reached its destination: QEMU before 8.0
        tells its channels by their order, and so does its post-copy channel to this day.
        """
        hello = self._hello(service)
        try:
            way = self._open(hello)
        except FAILURES as error:
            self._leave(hello)
            self._refuse(local, service, f"no way through {self.address}: {error}")
            return
        connection = self._connection(local, way)
        streams = [stream.socket for stream in (way.peer, *way.more)]
        try:
            self._spawn(f"{service}-out", lambda: self._carry_and_leave(connection, hello, local, *streams))
        except RuntimeError as error:
            self._leave(hello)
            self._give_up(way.peer, *way.more)
            self._refuse(local, service, error)

    def _connection(self, local: socket.socket, way: Way) -> Connection:
        peer, (service, *_), pumps, _ = way
        if service not in self._hold:
            return Connection(service, PlainStream(local), peer, self._peer_timeout_s, pumps=pumps)
        held = HeldStream(local)
        return Connection(service, held, peer, self._peer_timeout_s, lambda: self._lost(service), pumps)

    def _carry_and_leave(
        self, connection: Connection, hello: Hello, local: socket.socket, *streams: socket.socket
    ) -> None:
        self._holding.add(*streams)
        try:
            self._carry(connection, local, *streams)
        finally:
            self._holding.remove(*streams)
            self._leave(hello)

    def _hello(self, service: str) -> Hello:
        if self._sessions and service == DEFAULT_SERVICE:
            return self._sessions.hello(service, self._security.token)
        return Hello(service, self._security.token)

    def _leave(self, hello: Hello) -> None:
        if self._sessions and hello.carriage is Carriage.BLOCKS:
            self._sessions.leave(hello)

    def _open(self, hello: Hello) -> Way:
        """Open what a connection needs; raises one of `FAILURES`."""
        peer, reply = self._connect(hello)
        if self._sessions is None or hello.carriage is Carriage.AS_IS:
            return Way(peer, hello, as_is(self._holding.allowed))
        more: list[Stream] = []
        try:
            self._sessions.check(reply)
            more.extend(self._connect(hello._replace(stream=number))[0] for number in range(1, self._streams))
        except BaseException:
            self._give_up(peer, *more)
            raise
        packer = self._sessions.packer(hello, reply, more, self._holding.allowed)
        return Way(peer, hello, Pumps(outward=packer.pump, wake=packer.wake), more)

    def _give_up(self, *streams: Stream) -> None:
        for stream in streams:
            self._replace_opening(stream.socket, None)
            stream.close(reset=True)

    def _connect(self, hello: Hello) -> tuple[Stream, Reply]:
        """Connect to the receiver and have it connect to its service; raises one of `FAILURES`."""
        bare = connect_tcp(self.address)
        bare.settimeout(None)
        self._replace_opening(bare, bare)
        sock = bare
        try:
            sock = self._wrap(bare, server=False)
            peer = self._secure(sock)
            peer.limit(self.handshake_s)
            peer.send(pack_hello(hello))
            reply = _read_reply(peer, time.monotonic() + self.handshake_s + CONNECT_S)
            peer.limit(None)
        except BaseException:
            self._replace_opening(sock, None)
            close(sock, reset=True)
            raise
        return peer, reply


def _read_reply(peer: Stream, deadline: float) -> Reply:
    """Wait for the receiver's consent; raises `WireError` with what to do about it, OSError."""
    try:
        start = read_exactly(peer, PREAMBLE_BYTES, deadline)
    except (ConnectionResetError, WireError) as error:
        # So does a gateway of version 1 when it does not know the version.
        raise WireError("closed without an answer: its log says why, or its vferry is older") from error
    try:
        check_preamble(start)
        header = start + read_exactly(peer, REPLY.size - len(start), deadline)
        reply = unpack_reply(header, read_exactly(peer, reply_body_size(header), deadline + RESIDENT_S))
    except VersionError as error:
        raise WireError(f"{error}: install the same vferry on both hosts") from error
    if reply.status is not Status.ACCEPTED:
        raise WireError(f"the receiving gateway refuses: {reply.status.name.lower().replace('_', ' ')}")
    return reply
