"""Is the peer of a TCP connection still there, though it may not be taking data?"""

import socket
import struct

# The start of struct tcp_info, which Linux only ever extends at its end.
TCP_INFO = struct.Struct("=8B13I")
TCP_CLOSE = 7


class PeerWatch:
    """Watches one connection; ask `dead` about once a second.

    Something is unanswered while data or a probe of the kernel's (keepalive, or of a closed window) is out and
    not acknowledged. The peer is dead when that was so twice in a row and nothing at all has come from it for
    the timeout. A peer that keeps its window closed answers every probe, so it lives for as long as it likes.
    """

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        self._socket = sock
        self._timeout_ms = timeout_s * 1000
        self._unanswered = False

    def dead(self) -> bool:
        """Tell whether the peer is gone; raises OSError once the socket is closed."""
        info = TCP_INFO.unpack(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size))
        state, probes = info[0], info[3]
        unacked, data_age_ms, ack_age_ms = info[12], info[19], info[20]
        unanswered_before, self._unanswered = self._unanswered, bool(probes or unacked)
        silent = min(data_age_ms, ack_age_ms) >= self._timeout_ms
        return state == TCP_CLOSE or (unanswered_before and self._unanswered and silent)
