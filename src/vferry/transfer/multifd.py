"""QEMU's multifd stream, as far as the gateway reads it: pure functions on bytes.

The layout is that of `MultiFDInit_t` and `MultiFDPacket_t` in QEMU's `migration/multifd.h`, the same from 7.2 to 11.1
for guests with pages of 4 KiB; integers are big-endian::

    initial packet, once         4 magic, 4 version, 16 uuid, 1 channel, 39 unused
    packet, 1,344 bytes          4 magic, 4 version, 4 flags, 4 pages allocated, 4 normal pages, 4 payload size,
                                 8 packet number, 4 zero pages, 28 unused, 256 name of the RAM block,
                                 128 × 8 offsets of the pages in it: the normal ones, the zero ones, then rubbish
    payload                      the normal pages

What differs: before 9.0 zero pages went through the main stream and the field was unused, always 0. QEMU 7.2 leaves
the payload size of the packet before in a packet without pages. From 10.0 a packet may carry a device's state: its
header has 276 bytes, of which only the first 12 are the same.
"""

import struct
from typing import NamedTuple

PREAMBLE = struct.pack(">II", 0x11223344, 1)
INITIAL_BYTES = 64
HEADER_BYTES = 1344
PACKET_PAGES = 128
PAGE_BYTES = 4096
OFFSETS_AT = 320
SYNC = 1
FLAGS_END = 12
"""Where a header's part ends that all kinds of packets have."""

_FIELDS = struct.Struct(">8xIIII8xI28x256s")


class PacketHeader(NamedTuple):
    """What a packet says about itself. `ramblock` is without its padding."""

    sync: bool
    normal_pages: int
    zero_pages: int
    ramblock: bytes

    @property
    def payload_bytes(self) -> int:
        return self.normal_pages * PAGE_BYTES


def is_of_pages(start: bytes | bytearray) -> bool:
    """Whether a packet that starts with these `FLAGS_END` bytes may be one of plain pages, and so of that length."""
    return not int.from_bytes(start[8:FLAGS_END], "big") & ~SYNC


def parse_header(data: bytes | bytearray | memoryview) -> PacketHeader | None:
    """Read the header of a packet of plain pages from its 1,344 bytes; None for whatever else it is.

    None also stands for packets that the gateway leaves alone: compressed by QEMU itself, device state, other pages
    than of 4 KiB.
    """
    flags, allocated, normal, payload, zero, name = _FIELDS.unpack_from(data)
    if bytes(data[: len(PREAMBLE)]) != PREAMBLE or flags & ~SYNC or allocated not in (0, PACKET_PAGES):
        return None
    if normal + zero > PACKET_PAGES or (normal and payload != normal * PAGE_BYTES):
        return None
    return PacketHeader(bool(flags & SYNC), normal, zero, name.partition(b"\0")[0])
