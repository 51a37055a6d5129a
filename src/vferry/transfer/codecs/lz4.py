"""LZ4 in its block format. Levels: 1 is the plain compressor, 2 and more its high compression."""

import lz4.block

from vferry.transfer.codecs import CodecError


class Lz4Codec:
    """The fastest to undo."""

    in_software = False

    def encode(self, data: memoryview, level: int) -> bytes:
        options = {"mode": "high_compression", "compression": level} if level > 1 else {}
        encoded: bytes = lz4.block.compress(data, store_size=False, **options)
        return encoded

    def decode(self, data: memoryview, size: int) -> bytes:
        try:
            found: bytes = lz4.block.decompress(data, uncompressed_size=size)
        except lz4.block.LZ4BlockError as error:
            raise CodecError(f"lz4: {error}") from error
        if len(found) != size:
            raise CodecError(f"lz4: {len(found)} bytes instead of {size}")
        return found


def make() -> Lz4Codec:
    """Make one for a thread."""
    return Lz4Codec()
