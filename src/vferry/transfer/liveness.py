"""Is the peer of a TCP connection still there, though it may not be taking data?"""

import socket
import struct
import time

# The start of struct tcp_info, which Linux only ever extends at its end.
TCP_INFO = struct.Struct("=8B13I")
TCP_CLOSE = 7
QUIET_MS = 1000


class PeerWatch:
    """Watches one connection; ask `dead` about once a second.

    The peer is dead when something has been unanswered, at each time asked, for the timeout: a probe of the
    kernel's (keepalive, or of a closed window) or data sent later than the last sign of life. A peer that keeps
    its window closed answers what is sent to it, however rarely that is, so it lives for as long as it likes.
    """

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        self._socket = sock
        self._timeout_s = timeout_s
        self._unanswered_since: float | None = None

    def dead(self) -> bool:
        """Tell whether the peer is gone; raises OSError once the socket is closed."""
        info = TCP_INFO.unpack(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size))
        state, probes, unacked = info[0], info[3], info[12]
        sent_age_ms, quiet_ms = info[17], min(info[19], info[20])
        now = time.monotonic()
        if quiet_ms < QUIET_MS or not (probes or (unacked and sent_age_ms < quiet_ms)):
            self._unanswered_since = None
        elif self._unanswered_since is None:
            self._unanswered_since = now
        since = self._unanswered_since
        return state == TCP_CLOSE or (since is not None and now - since >= self._timeout_s)
