"""What the fuzzer begins with: bytes as they really come."""

import random
from collections.abc import Iterator

from transfer.qemu import INITIAL, packet, page

from vferry.transfer.block import BlockHeader, pack_block_header
from vferry.transfer.checksum import crc32
from vferry.transfer.codecs import NUMBERS, available, make_codec
from vferry.transfer.differences import BITS_BYTES
from vferry.transfer.multifd import HEADER_BYTES, PAGE_BYTES, parse_header
from vferry.transfer.table import DIFFERENCE, KEPT, PLAIN, RESIDENT, Table, flatten_header, leave_out, pack_table
from vferry.transfer.wire import (
    DIGEST_BYTES,
    END,
    FRAME,
    KEY_BYTES,
    Carriage,
    Hashes,
    Hello,
    Reply,
    Status,
    pack_hello,
    pack_reply,
)


def seeds() -> Iterator[tuple[str, bytes]]:
    """Inputs by the name of their target."""
    yield "hello", pack_hello(Hello("memory", b"token", Carriage.BLOCKS, 1, 2, 256, bytes(8)))
    yield "reply", pack_reply(Reply(Status.ACCEPTED, frozenset({0, 1, 2}), 256))
    hashes = Hashes(bytes(KEY_BYTES), bytes(2 * DIGEST_BYTES))
    yield "reply", pack_reply(Reply(Status.ACCEPTED, frozenset({0}), 256, resident=hashes))
    stream = INITIAL + _packet(2) + _packet(0)
    yield "split", b"\x40" + stream
    yield "blocks", random.Random(1).randbytes(4096)  # noqa: S311
    for name in sorted(available()):
        for fates in (b"", bytes([PLAIN, KEPT]), bytes([KEPT, DIFFERENCE]), bytes([RESIDENT, KEPT])):
            yield "receive", _block(name, _packet(2), fates) + END
        yield "receive", _block(name, _packet(2)[:HEADER_BYTES], b"", 2 * PAGE_BYTES) + bytes(2 * PAGE_BYTES) + END


def _packet(normal: int) -> bytes:
    return packet(range(0, 3 * PAGE_BYTES, PAGE_BYTES), [page(1)] * normal)


def _block(codec: str, packet: bytes, fates: bytes, passed: int = 0) -> bytes:
    stream, whole = memoryview(bytearray(packet)), parse_header(packet)
    assert whole
    flatten_header(stream, 0)
    different = fates.count(DIFFERENCE)
    differences = b"\x80" + bytes(BITS_BYTES * different + 7) if different else b""
    described = Table([0], fates, range(len(fates) - fates.count(PLAIN)), range(fates.count(RESIDENT)))
    table = pack_table(described)
    content = bytes(stream[: leave_out(stream, [(0, whole)], fates)]) + table + differences
    encoded = make_codec(codec).encode(memoryview(content), 1) if codec != "none" else content
    header = BlockHeader(
        NUMBERS[codec], 0, len(stream), len(table), crc32(packet), (), passed, described.left_out, len(differences)
    )
    block = pack_block_header(header) + encoded
    return FRAME.pack(len(block)) + block
