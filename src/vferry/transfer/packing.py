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
from vferry.transfer.copies import DIFFERENCE, SenderCopies, SentPages
from vferry.transfer.counters import BlockCount, Counters
from vferry.transfer.multifd import HEADER_BYTES, PACKET_PAGES, PAGE_BYTES
from vferry.transfer.pump import Count
from vferry.transfer.splitting import OPAQUE_BYTES, Packet, Splitter
from vferry.transfer.stream import Stream
from vferry.transfer.table import PACKET_LIMIT, Table, flatten_header, pack_table, pages_at
from vferry.transfer.tuning import Sample, Tuner
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
        head, encoded, counted = self._pack(size)
        encoded_at = time.monotonic()
        if len(encoded) <= JOINED_BYTES:
            peer.send(head + encoded)
        else:
            peer.send(head)
            peer.send(encoded)
        sent_at = time.monotonic()
        self._tuner.observe(
            Sample(
                size, len(encoded), waited_s=self._waited_s, packed_s=encoded_at - begin, sent_s=sent_at - encoded_at
            )
        )
        self._channel.counters.add(counted)
        count(counted.wire_bytes)
        self._waited_s = 0.0
        self._buffer[: len(rest)] = rest
        self._filled = len(rest)
        self._base += size
        self._packets.clear()

    def _pack(self, size: int) -> tuple[bytes, bytes | memoryview, BlockCount]:
        stream = self._buffer[:size]
        packets = [packet for packet in self._packets if packet.start >= self._base]
        checksum = crc32(stream)
        starts = [packet.start - self._base for packet in packets]
        offsets = [flatten_header(stream, start) for start in starts]
        sent = [
            SentPages(header.ramblock, before[: header.normal_pages], pages_at(stream, start, header))
            for (_, header), start, before in zip(packets, starts, offsets, strict=True)
            if header.normal_pages
        ]
        number, copies, _ = self._channel
        fates, slots, needs = copies.exchange(sent, number, self._sequence) if copies and sent else (b"", (), ())
        table = pack_table(Table(starts, fates, slots))
        self._buffer[size : size + len(table)] = table
        name, encoded = self._encode(self._buffer[: size + len(table)])
        header = BlockHeader(NUMBERS[name], self._sequence, size, len(table), checksum, needs)
        self._sequence += 1
        head = pack_block_header(header)
        wire_bytes = len(head) + len(encoded)
        zero = sum(packet.header.zero_pages for packet in packets)
        pages = zero + sum(packet.header.normal_pages for packet in packets)
        counted = BlockCount(name, size, wire_bytes, pages, zero, fates.count(DIFFERENCE))
        return FRAME.pack(wire_bytes) + head, encoded, counted

    def _encode(self, content: memoryview) -> tuple[str, bytes | memoryview]:
        """Encode with the codec of the moment, or not at all if that makes it no smaller."""
        name, level = self._tuner.choice
        codec = self._codecs.get(name)
        if codec is None:
            codec = self._codecs[name] = make_codec(name)
        encoded = codec.encode(content, level)
        return (name, encoded) if len(encoded) < len(content) else ("none", content)
