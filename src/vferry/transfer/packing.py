"""The sender's half of a compressed connection: QEMU's stream in, blocks out. One thread's work.

Nothing is held back while the input idles, but for a packet that QEMU has begun to write and writes in one piece: that
one waits for its rest, at most `HOLD_MS`. Under load a block holds at most `BLOCK_BYTES`.
"""

import select
import time
from typing import NamedTuple

from vferry.transfer.block import BlockHeader, pack_block_header
from vferry.transfer.checksum import crc32
from vferry.transfer.codecs import NUMBERS, Codec, make_codec
from vferry.transfer.copies import DIFFERENCE, Fates, SenderCopies, SentPages
from vferry.transfer.counters import BlockCount, Counters
from vferry.transfer.multifd import HEADER_BYTES, PACKET_PAGES, PAGE_BYTES
from vferry.transfer.pump import Count
from vferry.transfer.splitting import OPAQUE_BYTES, Packet, Splitter
from vferry.transfer.stream import Stream
from vferry.transfer.table import PACKET_LIMIT, Table, flatten_header, pack_table, pages_at
from vferry.transfer.tuning import Choice, Sample, Tuner
from vferry.transfer.wire import END, FRAME

BLOCK_BYTES = HEADER_BYTES * 8 + PACKET_PAGES * PAGE_BYTES
TABLE_BYTES = 16 * 1024
HOLD_MS = 100
# A header is sent together with this much, as one record of TLS and one call.
JOINED_BYTES = 64 * 1024


class PackingChannel(NamedTuple):
    """What a packer shares: its number in the session, the session's copies if it may use them, the counters."""

    number: int
    copies: SenderCopies | None
    counters: Counters


class Packed(NamedTuple):
    """A block ready to be sent: the frame's and its own header, what is encoded, what to count."""

    head: bytes
    encoded: bytes | memoryview
    counted: BlockCount
    headers_only: bool
    encoded_s: float


class Packer:
    """Packs one connection's stream."""

    def __init__(self, channel: PackingChannel, tuner: Tuner) -> None:
        self._channel = channel
        self._tuner = tuner
        self._codecs: dict[str, Codec] = {}
        self._buffer = memoryview(bytearray(BLOCK_BYTES + TABLE_BYTES))
        self._filled = 0
        self._base = 0
        self._splitter = Splitter()
        self._packets: list[Packet] = []
        self._sequence = 0
        self._waited_s = 0.0

    def pump(self, local: Stream, peer: Stream, count: Count) -> None:
        """Carry what the local process writes to the peer gateway, and its half-close; raises OSError."""
        arrivals = select.poll()
        arrivals.register(local.socket, select.POLLIN)
        while True:
            if self._filled and not arrivals.poll(HOLD_MS if self._splitter.inside else 0):
                self._send(self._filled, peer, count)
            start = time.monotonic()
            size = local.recv_into(self._buffer[self._filled :][: self._wanted()])
            self._waited_s += time.monotonic() - start
            if not size:
                break
            self._packets += self._splitter.feed(self._buffer[self._filled :][:size])
            self._filled += size
            if self._wanted() <= 0:
                self._send(self._complete(), peer, count)
        if self._filled:
            self._send(self._filled, peer, count)
        peer.send(END)

    def _wanted(self) -> int:
        """How many bytes to read next; none if the block must be sent first."""
        if self._splitter.opaque:
            return OPAQUE_BYTES - self._filled
        wanted = self._splitter.wanted
        fits = wanted <= BLOCK_BYTES - self._filled and len(self._packets) < PACKET_LIMIT
        return wanted if fits else 0

    def _complete(self) -> int:
        """The end of what is complete in the buffer; all of it if nothing is."""
        return max(0, self._splitter.begun - self._base) or self._filled

    def _send(self, size: int, peer: Stream, count: Count) -> None:
        """Send the first `size` bytes of the buffer as a block, and keep the rest."""
        rest = bytes(self._buffer[size : self._filled])
        begin = time.monotonic()
        packed = self._pack(size)
        packed_at = time.monotonic()
        if len(packed.encoded) <= JOINED_BYTES:
            peer.send(packed.head + packed.encoded)
        else:
            peer.send(packed.head)
            peer.send(packed.encoded)
        sent_s = time.monotonic() - packed_at
        if not packed.headers_only:
            prepared_s = packed_at - begin - packed.encoded_s
            sample = Sample(size, len(packed.encoded), self._waited_s, prepared_s, packed.encoded_s, sent_s)
            self._tuner.observe(sample)
        self._channel.counters.add(packed.counted)
        count(packed.counted.wire_bytes)
        self._waited_s = 0.0
        self._buffer[: len(rest)] = rest
        self._filled = len(rest)
        self._base += size
        self._packets.clear()

    def _pack(self, size: int) -> Packed:
        stream = self._buffer[:size]
        packets = [packet for packet in self._packets if packet.start >= self._base]
        normal = sum(packet.header.normal_pages for packet in packets)
        zero = sum(packet.header.zero_pages for packet in packets)
        headers_only = bool(packets) and not normal
        choice = self._tuner.for_headers if headers_only else self._tuner.choice
        checksum = crc32(stream)
        # A difference is as long as its page: without a codec it gains nothing.
        copies = self._channel.copies if choice.codec != "none" else None
        found, table = self._transform(stream, packets, copies)
        self._buffer[size : size + len(table)] = table
        begin = time.monotonic()
        codec, encoded, in_software = self._encode(choice, self._buffer[: size + len(table)])
        encoded_s = time.monotonic() - begin
        head = pack_block_header(BlockHeader(NUMBERS[codec], self._sequence, size, len(table), checksum, found.needs))
        self._sequence += 1
        wire_bytes = len(head) + len(encoded)
        counted = BlockCount(codec, size, wire_bytes, normal + zero, zero, found.fates.count(DIFFERENCE), in_software)
        return Packed(FRAME.pack(wire_bytes) + head, encoded, counted, headers_only, encoded_s)

    def _transform(self, stream: memoryview, packets: list[Packet], copies: SenderCopies | None) -> tuple[Fates, bytes]:
        """Make headers and pages smaller in place; returns what became of the pages, and the table."""
        starts = [packet.start - self._base for packet in packets]
        offsets = [flatten_header(stream, start) for start in starts]
        found = Fates(b"", (), ())
        if copies:
            sent = [
                SentPages(header.ramblock, before[: header.normal_pages], pages_at(stream, start, header))
                for (_, header), start, before in zip(packets, starts, offsets, strict=True)
                if header.normal_pages
            ]
            found = copies.exchange(sent, self._channel.number, self._sequence)
        return found, pack_table(Table(starts, found.fates, found.slots))

    def _encode(self, choice: Choice, content: memoryview) -> tuple[str, bytes | memoryview, bool]:
        """Encode as chosen, or not at all if that makes it no smaller."""
        name, level = choice
        codec = self._codecs.get(name)
        if codec is None:
            codec = self._codecs[name] = make_codec(name)
        encoded = codec.encode(content, level)
        if len(encoded) < len(content):
            return name, encoded, codec.in_software
        return "none", content, False
