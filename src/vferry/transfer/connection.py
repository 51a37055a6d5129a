"""One carried connection: a local unix socket, a stream to the peer gateway, a thread for each direction."""

import threading
from collections.abc import Callable
from contextlib import suppress

from vferry.transfer.liveness import PeerWatch
from vferry.transfer.pump import AS_IS, Pumps
from vferry.transfer.stream import Stream
from vferry.transfer.wire import WireError


class Connection:
    """Carries bytes both ways until both sides have ended, or until one breaks and both are torn down.

    `sent` and `received` are payload bytes to and from the peer gateway. `error` says why the connection broke;
    `cut` is true if the gateway's own stop broke it. With `hold`, which is called when the wire breaks, the local
    process is not told: its socket stays open, takes what is written and says nothing until the gateway's stop.
    """

    def __init__(
        self,
        service: str,
        local: Stream,
        peer: Stream,
        peer_timeout_s: float,
        hold: Callable[[], None] | None = None,
        pumps: Pumps = AS_IS,
    ) -> None:
        self.service = service
        self.sent = 0
        self.received = 0
        self.error: str | None = None
        self.cut = False
        self._local = local
        self._peer = peer
        self._hold = hold
        self._pumps = pumps
        self._watch = PeerWatch(peer.socket, peer_timeout_s)
        self._state = threading.Lock()
        self._over = False
        self._ended = 0

    def carry(self) -> None:
        """Return when the connection is over; its sockets are still open."""
        inward = threading.Thread(target=self._run, args=(self._inward,), name=f"{self.service}-in", daemon=True)
        try:
            inward.start()
        except RuntimeError as error:
            self.abort(str(error))
        else:
            self._run(self._outward)
            inward.join()
            self._drain()
        with self._state:
            self._over = True

    def close(self) -> None:
        """Close both sockets, with a reset if the connection broke; call after `carry`."""
        self._peer.close(reset=self.error is not None)
        self._local.close(reset=self.error is not None)

    def abort(self, reason: str, *, cut: bool = False) -> None:
        """Break the connection, from any thread, unless it is over; `carry` then returns."""
        with self._state:
            if self._over:
                return
            broken = self.error is None
            if broken:
                self.error = reason
                self.cut = cut
                self._peer.wake()
                self._pumps.wake()
            if cut or self._hold is None:
                self._local.wake()
                return
        if broken:
            self._hold()

    def check_peer(self) -> None:
        """Break the connection if its peer is dead; call about once a second."""
        with self._state:
            dead = not self._over and self._watch.dead()
        if dead:
            self.abort("the peer host does not answer")

    def _drain(self) -> None:
        """Take what a held local process still writes, until it ends or the gateway is stopped."""
        if self._hold is None or self.error is None:
            return
        rest = memoryview(bytearray(4096))
        with suppress(OSError):
            while self._local.recv_into(rest):
                pass

    def _run(self, direction: Callable[[], None]) -> None:
        try:
            direction()
        except (OSError, WireError) as error:
            self.abort(str(error))
        except BaseException as error:
            self.abort(repr(error))
            raise
        else:
            self._end()

    def _outward(self) -> None:
        self._pumps.outward(self._local, self._peer, self._count_sent)

    def _inward(self) -> None:
        self._pumps.inward(self._peer, self._local, self._count_received)

    def _count_sent(self, size: int) -> None:
        self.sent += size

    def _count_received(self, size: int) -> None:
        self.received += size

    def _end(self) -> None:
        with self._state:
            self._ended += 1
            self._over = self._over or self._ended == 2
