"""What a block says of the packets in it, so that their headers and pages can be sent changed and be restored.

The table stands behind what is left of the stream in a block; a block without packets has none. Big-endian::

    2  number of packets
    2  number of fates: 0, or one for each normal page
    n  starts of the packets in the block's stream, 4 each
    m  fates, 1 each (`vferry.transfer.copies`)
    …  slots, 4 each, of the pages whose fate has one
    …  numbers, 4 each, of the pages that are RESIDENT (`vferry.transfer.resident`)

The offsets in a header are sent as differences to the one before: those of pages that follow each other are all the
same then, and compress to nothing. Pages whose fate is DIFFERENCE or RESIDENT are left out of the stream.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vferry.transfer.block import STREAM_LIMIT, TABLE_LIMIT
from vferry.transfer.differences import WORDS, Pages
from vferry.transfer.multifd import HEADER_BYTES, OFFSETS_AT, PACKET_PAGES, PAGE_BYTES, PacketHeader, parse_header
from vferry.transfer.wire import WireError

PLAIN, KEPT, DIFFERENCE, RESIDENT = range(4)
"""The fates of pages."""
# Headers without pages fill a block; the longest table has a packet's share and the pages' five bytes each.
PACKET_LIMIT = STREAM_LIMIT // HEADER_BYTES

_COUNTS = struct.Struct(">HH")


class Table(NamedTuple):
    """`starts` in bytes from the start of the block's stream; `fates` is empty or has one for each normal page."""

    starts: Sequence[int]
    fates: bytes = b""
    slots: npt.ArrayLike = ()
    residents: npt.ArrayLike = ()

    @property
    def left_out(self) -> int:
        """How many pages are not in the stream."""
        return count_left_out(self.fates)


def count_left_out(fates: bytes) -> int:
    """How many pages with these fates are not in the stream."""
    return fates.count(DIFFERENCE) + fates.count(RESIDENT)


def _are_there(fates: bytes) -> npt.NDArray[np.bool_]:
    there: npt.NDArray[np.bool_] = np.frombuffer(fates, np.uint8) < DIFFERENCE
    return there


def pack_table(table: Table) -> bytes:
    """Encode a table; empty if the block has no packets."""
    if not table.starts:
        return b""
    starts = np.array(table.starts, ">u4").tobytes()
    numbers = (np.array(numbers, ">u4").tobytes() for numbers in (table.slots, table.residents))
    return b"".join((_COUNTS.pack(len(table.starts), len(table.fates)), starts, table.fates, *numbers))


def unpack_table(data: memoryview) -> Table:
    """Decode a table; raises `WireError`. Whether it fits the stream is for `restore_headers` to say."""
    if not data:
        return Table(())
    if not _COUNTS.size <= len(data) <= TABLE_LIMIT:
        raise WireError("table out of bounds")
    count, fates = _COUNTS.unpack_from(data)
    fates_at = _COUNTS.size + 4 * count
    slots_at = fates_at + fates
    if slots_at > len(data):
        raise WireError("table truncated")
    found = bytes(data[fates_at:slots_at])
    numbers_at = slots_at + 4 * (fates - found.count(PLAIN))
    if len(data) != numbers_at + 4 * found.count(RESIDENT):
        raise WireError("table truncated")
    starts = np.frombuffer(data[_COUNTS.size : fates_at], ">u4").tolist()
    slots, residents = (np.frombuffer(part, ">u4") for part in (data[slots_at:numbers_at], data[numbers_at:]))
    return Table(starts, found, slots, residents)


def flatten_header(stream: memoryview, start: int) -> npt.NDArray[np.uint64]:
    """Replace a header's offsets by differences, in place; returns all 128 of them as they were."""
    view = _offsets(stream, start)
    offsets = view.astype(np.uint64)
    view[1:] = offsets[1:] - offsets[:-1]
    return offsets


def leave_out(stream: memoryview, packets: Sequence[tuple[int, PacketHeader]], fates: bytes) -> int:
    """Move what is left of a stream together, in place, without some pages; returns how many bytes that are."""
    size = read = 0
    for start, header in packets:
        mine, fates = fates[: header.normal_pages], fates[header.normal_pages :]
        if not count_left_out(mine):
            continue
        size = _move(stream, read, start + HEADER_BYTES, size)
        read = start + HEADER_BYTES + header.payload_bytes
        left = _are_there(mine)
        if left.any():
            pages = pages_at(stream, start, header)[left].data.cast("B")
            stream[size : size + len(pages)] = pages
            size += len(pages)
    return _move(stream, read, len(stream), size) if read else len(stream)


def _move(stream: memoryview, begin: int, end: int, to: int) -> int:
    """Returns the end of what was moved."""
    after = to + end - begin
    stream[to:after] = stream[begin:end]
    return after


class Restored(NamedTuple):
    """A block's stream as it was, but for the pages that were left out, and the packets in it."""

    stream: memoryview
    packets: Sequence[tuple[int, PacketHeader]]


def put_back(left: memoryview, table: Table, size: int, passed_bytes: int = 0) -> Restored:
    """Undo `leave_out` and `flatten_header` for all packets; raises `WireError` where there can be none.

    `size` is that of the whole stream. The pages of the last packet may be what is passed on behind the block.
    """
    stream, fates = np.empty(size, np.uint8).data, table.fates
    packets: list[tuple[int, PacketHeader]] = []
    rest, written, end = _Rest(left), 0, 0
    for start in table.starts:
        head = start + HEADER_BYTES
        if not end <= start <= size - HEADER_BYTES:
            raise WireError("packet out of bounds")
        stream[written:head] = rest.take(head - written)
        header = _restore_header(stream, start)
        end = head + header.payload_bytes
        if end > size + passed_bytes:
            raise WireError("packet out of bounds")
        mine, fates = fates[: header.normal_pages], fates[header.normal_pages :]
        written = head
        if count_left_out(mine):
            _put_pages(rest, stream, (start, header), mine)
            written = end
        packets.append((start, header))
    stream[written:] = rest.take(size - written)
    if rest.left:
        raise WireError("more of the stream than there should be")
    return Restored(stream, packets)


class _Rest:
    """What is left of a stream, to be taken in order."""

    def __init__(self, left: memoryview) -> None:
        self.left = left

    def take(self, size: int) -> memoryview:
        """The next bytes; raises `WireError`."""
        if size > len(self.left):
            raise WireError("less of the stream than there should be")
        taken, self.left = self.left[:size], self.left[size:]
        return taken


def _put_pages(rest: _Rest, stream: memoryview, packet: tuple[int, PacketHeader], fates: bytes) -> None:
    """Put those pages of a packet that were not left out in their places."""
    start, header = packet
    if len(fates) < header.normal_pages or start + HEADER_BYTES + header.payload_bytes > len(stream):
        raise WireError("fates of pages out of bounds")
    there = _are_there(fates)
    count = int(np.count_nonzero(there))
    pages = np.frombuffer(rest.take(count * PAGE_BYTES), np.uint64)
    pages_at(stream, start, header)[there] = pages.reshape(count, WORDS)


def _restore_header(stream: memoryview, start: int) -> PacketHeader:
    view = _offsets(stream, start)
    view[:] = np.cumsum(view.astype(np.uint64), dtype=np.uint64)
    header = parse_header(stream[start : start + HEADER_BYTES])
    if header is None:
        raise WireError("packet out of bounds")
    return header


def pages_at(stream: memoryview, start: int, header: PacketHeader) -> Pages:
    """The normal pages of a packet, one a row, as a view into the stream."""
    pages = stream[start + HEADER_BYTES :][: header.payload_bytes]
    return np.frombuffer(pages, np.uint64).reshape(header.normal_pages, WORDS)


def _offsets(stream: memoryview, start: int) -> npt.NDArray[np.uint64]:
    return np.frombuffer(stream, ">u8", PACKET_PAGES, start + OFFSETS_AT)
