"""Streams as QEMU writes them, for tests."""

import struct
from collections.abc import Sequence

from hypothesis import strategies as st

from vferry.transfer.multifd import HEADER_BYTES, PAGE_BYTES, PREAMBLE, SYNC

INITIAL = PREAMBLE + bytes(range(16)) + b"\x03" + bytes(39)


def packet(
    offsets: Sequence[int] = (),
    pages: Sequence[bytes] = (),
    *,
    flags: int = 0,
    size: int | None = None,
    ramblock: bytes = b"pc.ram",
    number: int = 0,
    rubbish: int = 0,
) -> bytes:
    """Build a packet: the first `offsets` are those of `pages`, the rest zero pages; `rubbish` fills what is unused."""
    payload = b"".join(pages)
    zero = len(offsets) - len(pages)
    size = len(payload) if size is None else size
    fields = struct.pack(">IIIIQI28x256s", flags, 128, len(pages), size, number, zero, ramblock)
    header = PREAMBLE + fields + struct.pack(f">{len(offsets)}Q", *offsets)
    return header + bytes([rubbish]) * (HEADER_BYTES - len(header)) + payload


def page(seed: int) -> bytes:
    """A page of its own for each number."""
    return struct.pack(">Q", seed) * (PAGE_BYTES // 8)


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Any packet of at most four pages, of few different offsets."""
    offsets = draw(st.lists(st.integers(0, 8).map(lambda number: number * PAGE_BYTES), max_size=4, unique=True))
    normal = draw(st.integers(0, len(offsets)))
    pages = [page(draw(st.integers(0, 3))) for _ in range(normal)]
    flags = draw(st.sampled_from([0, 0, SYNC]))
    name = draw(st.sampled_from([b"pc.ram", b"vga.vram"]))
    stale = draw(st.sampled_from([None, 8192])) if not pages else None
    return packet(offsets, pages, flags=flags, size=stale, ramblock=name, rubbish=draw(st.sampled_from([0, 7])))


streams = st.lists(packets(), max_size=6).map(lambda parts: [INITIAL, *parts])
