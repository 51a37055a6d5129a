"""The receiver's half of a compressed connection: blocks in, QEMU's stream out. One thread's work."""

from typing import NamedTuple

from vferry.transfer.block import BlockHeader, unpack_block
from vferry.transfer.checksum import crc32
from vferry.transfer.codecs import CODECS, Codec, make_codec
from vferry.transfer.copies import DIFFERENCE, ReceiverCopies
from vferry.transfer.counters import BlockCount, Counters
from vferry.transfer.progress import Progress
from vferry.transfer.pump import Count
from vferry.transfer.stream import Stream
from vferry.transfer.table import pages_at, restore_headers, unpack_table
from vferry.transfer.wire import FRAME, FRAME_LIMIT, WireError


class UnpackingChannel(NamedTuple):
    """What an unpacker shares: its number in the session, the session's progress, its copies if it may use them."""

    number: int
    progress: Progress
    copies: ReceiverCopies | None
    counters: Counters


class Unpacker:
    """Restores one connection's stream."""

    def __init__(self, channel: UnpackingChannel) -> None:
        self._channel = channel
        self._codecs: dict[int, Codec] = {}
        self._buffer = memoryview(bytearray(FRAME_LIMIT))
        self._sequence = 0

    def pump(self, peer: Stream, local: Stream, count: Count) -> None:
        """Carry what comes from the peer gateway to the local process, and its half-close.

        Raises OSError, and `WireError` for whatever is no block, or is not the block that is due.
        """
        try:
            while block := self._read(peer):
                stream, counted = self._unpack(block)
                local.send(stream)
                self._channel.counters.add(counted)
                count(counted.wire_bytes)
        finally:
            self._channel.progress.end(self._channel.number)
        local.end()

    def _read(self, peer: Stream) -> memoryview:
        """The next frame's payload, empty for the end frame."""
        self._fill(peer, self._buffer[: FRAME.size])
        (size,) = FRAME.unpack_from(self._buffer)
        if size > FRAME_LIMIT:
            raise WireError(f"frame of {size} bytes, more than {FRAME_LIMIT}")
        payload = self._buffer[:size]
        self._fill(peer, payload)
        return payload

    def _fill(self, peer: Stream, rest: memoryview) -> None:
        while rest:
            size = peer.recv_into(rest)
            if not size:
                raise WireError("the peer gateway ended the connection without an end frame")
            rest = rest[size:]

    def _unpack(self, block: memoryview) -> tuple[memoryview, BlockCount]:
        header, encoded = unpack_block(block)
        if header.sequence != self._sequence:
            raise WireError(f"block {header.sequence} instead of {self._sequence}")
        content = self._decode(header, encoded)
        stream, pages = content[: header.stream_bytes], (0, 0, 0)
        if header.table_bytes:
            stream, pages = self._restore(header, content)
        if crc32(stream) != header.checksum:
            raise WireError(f"block {header.sequence} damaged")
        self._channel.progress.advance(self._channel.number, header.sequence)
        self._sequence += 1
        in_software = self._codecs[header.codec].in_software
        return stream, BlockCount(CODECS[header.codec], len(stream), len(block), *pages, in_software)

    def _decode(self, header: BlockHeader, encoded: memoryview) -> memoryview:
        codec = self._codecs.get(header.codec)
        if codec is None:
            codec = self._codecs[header.codec] = _make_codec(header.codec)
        return memoryview(codec.decode(encoded, header.stream_bytes + header.table_bytes))

    def _restore(self, header: BlockHeader, content: memoryview) -> tuple[memoryview, tuple[int, int, int]]:
        """Undo what the sender did to headers and pages, once what the block builds on is there."""
        table = unpack_table(content[header.stream_bytes :])
        stream = memoryview(bytearray(content[: header.stream_bytes]))
        packets = restore_headers(stream, table.starts)
        if table.fates:
            if self._channel.copies is None:
                raise WireError("page copies that were not agreed on")
            self._channel.progress.wait(header.needs)
            pages = [pages_at(stream, start, packet) for start, packet in packets]
            self._channel.copies.restore(pages, table.fates, table.slots)
        zero = sum(packet.zero_pages for _, packet in packets)
        normal = sum(packet.normal_pages for _, packet in packets)
        return stream, (normal + zero, zero, table.fates.count(DIFFERENCE))


def _make_codec(number: int) -> Codec:
    try:
        return make_codec(CODECS[number])
    except (KeyError, ImportError, OSError) as error:
        raise WireError(f"no codec {number} here") from error
