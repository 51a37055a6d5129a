"""What travels over the watched TCP connection, as bytes, and what the kernel says of it."""

import socket
import struct
from hashlib import blake2b

RECORD = 64
NUMBER = struct.Struct("!Q")
# tcpi_total_retrans of the kernel's struct tcp_info: after 8 bytes and 23 numbers of 4 bytes.
RETRANSMISSIONS = struct.Struct("=100xI")


class Content:
    """The numbered records of a session: each follows from its number, so none has to be kept."""

    def __init__(self, session: bytes) -> None:
        self._session = session

    def record(self, number: int) -> bytes:
        """A record: its number, and bytes that follow from number and session; `RECORD` bytes in all."""
        head = NUMBER.pack(number)
        return head + blake2b(head, key=self._session, digest_size=RECORD - NUMBER.size).digest()


class Echo:
    """Compares what comes back with what was written, byte for byte and place for place."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._spoilt = False
        self.received = 0
        """Bytes so far."""
        self.wrong = 0
        """Bytes of these that are not the ones written at their place."""
        self.echoed = 0
        """Records that came back whole and right."""

    def take(self, data: bytes) -> bool:
        """Takes the next bytes; whether they complete a record, right or wrong."""
        before = self.received // RECORD
        while data:
            number, at = divmod(self.received, RECORD)
            part, data = data[: RECORD - at], data[RECORD - at :]
            self._compare(part, self._content.record(number)[at : at + len(part)])
            self.received += len(part)
            if at + len(part) == RECORD:
                self.echoed += not self._spoilt
                self._spoilt = False
        return self.received // RECORD > before

    def _compare(self, part: bytes, expected: bytes) -> None:
        if part != expected:
            self.wrong += sum(one != other for one, other in zip(part, expected, strict=True))
            self._spoilt = True


def retransmissions(sock: socket.socket) -> int | None:
    """How many segments this end has sent again; None where the kernel does not say."""
    try:
        return parsed_retransmissions(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, RETRANSMISSIONS.size))
    except OSError:
        return None


def parsed_retransmissions(info: bytes) -> int | None:
    """The same of a `struct tcp_info`; older kernels have shorter ones."""
    if len(info) < RETRANSMISSIONS.size:
        return None
    number: int = RETRANSMISSIONS.unpack_from(info)[0]
    return number
