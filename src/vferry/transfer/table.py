"""What a block says of the packets in it, so that their headers and pages can be sent changed and be restored.

The table stands behind the stream's bytes in a block; a block without packets has none. Big-endian::

    2  number of packets
    2  number of fates: 0, or one for each normal page
    n  starts of the packets in the block's stream, 4 each
    m  fates, 1 each (`vferry.transfer.copies`)
    …  slots, 4 each, of the pages whose fate has one

The offsets in a header are sent as differences to the one before: those of pages that follow each other are all the
same then, and compress to nothing.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vferry.transfer.block import STREAM_LIMIT, TABLE_LIMIT
from vferry.transfer.multifd import HEADER_BYTES, OFFSETS_AT, PACKET_PAGES, PAGE_BYTES, PacketHeader, parse_header
from vferry.transfer.wire import WireError

Pages = npt.NDArray[np.uint64]
WORDS = PAGE_BYTES // 8
# Headers without pages fill a block; the longest table has a packet's share and the pages' five bytes each.
PACKET_LIMIT = STREAM_LIMIT // HEADER_BYTES

_COUNTS = struct.Struct(">HH")


class Table(NamedTuple):
    """`starts` in bytes from the start of the block's stream; `fates` is empty or has one for each normal page."""

    starts: Sequence[int]
    fates: bytes = b""
    slots: npt.ArrayLike = ()


def pack_table(table: Table) -> bytes:
    """Encode a table; empty if the block has no packets."""
    if not table.starts:
        return b""
    starts = np.array(table.starts, ">u4").tobytes()
    slots = np.array(table.slots, ">u4").tobytes()
    return _COUNTS.pack(len(table.starts), len(table.fates)) + starts + table.fates + slots


def unpack_table(data: memoryview) -> Table:
    """Decode a table; raises `WireError`. Whether it fits the stream is for `restore_headers` to say."""
    if not data:
        return Table(())
    if not _COUNTS.size <= len(data) <= TABLE_LIMIT:
        raise WireError("table out of bounds")
    count, fates = _COUNTS.unpack_from(data)
    fates_at = _COUNTS.size + 4 * count
    slots_at = fates_at + fates
    if slots_at > len(data) or (len(data) - slots_at) % 4:
        raise WireError("table truncated")
    starts = np.frombuffer(data[_COUNTS.size : fates_at], ">u4").tolist()
    return Table(starts, bytes(data[fates_at:slots_at]), np.frombuffer(data[slots_at:], ">u4"))


def flatten_header(stream: memoryview, start: int) -> npt.NDArray[np.uint64]:
    """Replace a header's offsets by differences, in place; returns all 128 of them as they were."""
    view = _offsets(stream, start)
    offsets = view.astype(np.uint64)
    view[1:] = offsets[1:] - offsets[:-1]
    return offsets


def restore_headers(stream: memoryview, starts: Sequence[int], passed_bytes: int = 0) -> list[tuple[int, PacketHeader]]:
    """Undo `flatten_header` for all packets and return them; raises `WireError` where there can be none.

    The pages of the last one may be what is passed on behind the block.
    """
    packets: list[tuple[int, PacketHeader]] = []
    end = 0
    for start in starts:
        if not end <= start <= len(stream) - HEADER_BYTES:
            raise WireError("packet out of bounds")
        view = _offsets(stream, start)
        view[:] = np.cumsum(view.astype(np.uint64), dtype=np.uint64)
        header = parse_header(stream[start : start + HEADER_BYTES])
        if header is None or start + HEADER_BYTES + header.payload_bytes > len(stream) + passed_bytes:
            raise WireError("packet out of bounds")
        packets.append((start, header))
        end = start + HEADER_BYTES + header.payload_bytes
    return packets


def pages_at(stream: memoryview, start: int, header: PacketHeader) -> Pages:
    """The normal pages of a packet, one a row, as a view into the stream."""
    pages = stream[start + HEADER_BYTES :][: header.payload_bytes]
    return np.frombuffer(pages, np.uint64).reshape(header.normal_pages, WORDS)


def _offsets(stream: memoryview, start: int) -> npt.NDArray[np.uint64]:
    return np.frombuffer(stream, ">u8", PACKET_PAGES, start + OFFSETS_AT)
