"""Blocks: how compressed bytes travel between gateways. Pure functions on bytes; the payload of a frame is one block.

Integers are big-endian::

    1  codec, by its number (`vferry.transfer.codecs`)
    1  0
    2  number of needs
    2  pages of the stream that are left out of it: differences (`vferry.transfer.differences`), or resident
    4  sequence: 0 for the first block of a channel, one more for each
    4  bytes of the stream in it, those left out among them, 1 to 1,572,864
    4  bytes of the table behind them, 0 to 16,384 (`vferry.transfer.table`)
    4  bytes of the differences behind that
    4  bytes of the stream that follow the block's frame as they are, 0 to 524,288: they are passed on unseen
    4  CRC-32 of what the destination's process gets of the block itself
    n  needs: 2 channel, 4 sequence each: blocks that must be applied before this one
    4  CRC-32 of all the above
    m  what is left of the stream, the table and the differences, encoded

A block that is damaged, repeated, left out or out of order ends its connection. Within TLS nothing is damaged on the
way: the checksum is there for what two gateways, their codecs and their page copies might do to it. What follows a
block as it is has none, for nothing is done to it.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from vferry.transfer.checksum import crc32
from vferry.transfer.differences import DIFFERENCE_LIMIT
from vferry.transfer.multifd import PAGE_BYTES
from vferry.transfer.wire import WireError

STREAM_LIMIT = 1536 * 1024
TABLE_LIMIT = 16 * 1024
PASSED_LIMIT = 512 * 1024

_FIXED = struct.Struct(">BxHHIIIIII")
_NEED = struct.Struct(">HI")
_CHECK = struct.Struct(">I")


class Need(NamedTuple):
    """A block, of another channel of the session, whose page copies this one builds on."""

    channel: int
    sequence: int


class BlockHeader(NamedTuple):
    """What a block says about itself. Sizes are those before encoding."""

    codec: int
    sequence: int
    stream_bytes: int
    table_bytes: int
    checksum: int
    needs: Sequence[Need] = ()
    passed_bytes: int = 0
    left_out: int = 0
    difference_bytes: int = 0

    @property
    def left_bytes(self) -> int:
        """What is left of the stream."""
        return self.stream_bytes - self.left_out * PAGE_BYTES

    @property
    def content_bytes(self) -> int:
        """All that is encoded."""
        return self.left_bytes + self.table_bytes + self.difference_bytes


def pack_block_header(header: BlockHeader) -> bytes:
    """Encode a header with its own checksum."""
    fixed = _FIXED.pack(
        header.codec,
        len(header.needs),
        header.left_out,
        header.sequence,
        header.stream_bytes,
        header.table_bytes,
        header.difference_bytes,
        header.passed_bytes,
        header.checksum,
    )
    packed = b"".join((fixed, *(_NEED.pack(*need) for need in header.needs)))
    return packed + _CHECK.pack(crc32(packed))


def unpack_block(data: memoryview) -> tuple[BlockHeader, memoryview]:
    """Take a block apart into its header and what is encoded; raises `WireError`."""
    if len(data) < _FIXED.size + _CHECK.size:
        raise WireError("block truncated")
    codec, count, left_out, sequence, stream, table, differences, passed, checksum = _FIXED.unpack_from(data)
    end = _FIXED.size + count * _NEED.size
    if len(data) < end + _CHECK.size:
        raise WireError("block truncated")
    if _CHECK.unpack_from(data, end)[0] != crc32(data[:end]):
        raise WireError("block header damaged")
    if not 1 <= stream <= STREAM_LIMIT or table > TABLE_LIMIT or passed > PASSED_LIMIT:
        raise WireError("block out of bounds")
    if left_out * PAGE_BYTES > stream or differences > left_out * DIFFERENCE_LIMIT:
        raise WireError("differences out of bounds")
    needs = tuple(Need(*need) for need in _NEED.iter_unpack(data[_FIXED.size : end]))
    header = BlockHeader(codec, sequence, stream, table, checksum, needs, passed, left_out, differences)
    return header, data[end + _CHECK.size :]
