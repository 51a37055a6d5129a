"""Finding the packets in a stream of which nothing is known beforehand."""

from typing import NamedTuple

from vferry.transfer.multifd import (
    FLAGS_END,
    HEADER_BYTES,
    INITIAL_BYTES,
    PREAMBLE,
    PacketHeader,
    is_of_pages,
    parse_header,
)

OPAQUE_BYTES = 512 * 1024


class Packet(NamedTuple):
    """A complete packet: where its header starts, in bytes from the start of the stream, and what it says."""

    start: int
    header: PacketHeader

    @property
    def end(self) -> int:
        return self.start + HEADER_BYTES + self.header.payload_bytes


class Splitter:
    """Follows the bytes of one connection, cut anywhere, and finds the multifd packets in them.

    A stream that does not start as a multifd channel, or stops to be one, is opaque from there on: nothing is an
    error. It keeps at most one header and never a payload.

    `position` counts the bytes so far; `begun` is where the first thing starts that is not complete yet.
    """

    def __init__(self) -> None:
        self.position = 0
        self.begun = 0
        self.opaque = False
        self._head = bytearray()
        self._size = INITIAL_BYTES
        self._header: PacketHeader | None = None
        self._payload_left = 0

    @property
    def wanted(self) -> int:
        """How many bytes complete what has begun, or how many are welcome where nothing is known."""
        if self.opaque:
            return OPAQUE_BYTES
        return self._payload_left or self._size - len(self._head)

    @property
    def inside(self) -> bool:
        """Whether something has begun whose rest must follow, because who wrote it writes it as one."""
        return self.begun < self.position

    @property
    def payload_ahead(self) -> int:
        """The size of a packet's pages when its header is complete and nothing of them has come yet; else 0."""
        whole = self._header.payload_bytes if self._header else 0
        return whole if self._payload_left == whole else 0

    def pass_over(self) -> Packet:
        """Take the pages that are ahead for read, and return the packet that they complete."""
        found: list[Packet] = []
        self.position += self._payload_left
        self._payload_left = 0
        self._complete(found)
        return found[0]

    def feed(self, data: memoryview) -> list[Packet]:
        """Take the next bytes of the stream and return the packets that they complete."""
        found: list[Packet] = []
        while data and not self.opaque:
            size = min(self.wanted, len(data))
            if self._payload_left:
                self._payload_left -= size
            else:
                self._take_head(data[:size])
            self.position += size
            data = data[size:]
            if not (self._payload_left or self._head):
                self._complete(found)
        self.position += len(data)
        if self.opaque:
            self.begun = self.position
        return found

    def _take_head(self, data: memoryview) -> None:
        self._head += data
        start = self._head[: len(PREAMBLE)]
        if not PREAMBLE.startswith(start) or self._is_foreign():
            self.opaque = True
        elif len(self._head) == self._size:
            self._read_head()

    def _is_foreign(self) -> bool:
        """Seen before the header is complete: one of another kind may be shorter, and nothing may follow it."""
        begun = self._size == HEADER_BYTES and len(self._head) >= FLAGS_END
        return begun and not is_of_pages(self._head[:FLAGS_END])

    def _read_head(self) -> None:
        if self._size == INITIAL_BYTES:
            self._size = HEADER_BYTES
        else:
            self._header = parse_header(self._head)
            self.opaque = self._header is None
            self._payload_left = self._header.payload_bytes if self._header else 0
        self._head.clear()

    def _complete(self, found: list[Packet]) -> None:
        if self._header:
            found.append(Packet(self.begun, self._header))
        self._header = None
        self.begun = self.position
