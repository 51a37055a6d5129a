"""Zstandard: a frame for each block. Levels 1 to 19, and negative ones, which are faster.

Level 3 is the library's with tables of half the size, which stay in the processor's cache: that takes less time, and
makes blocks of programs 1 % larger.
"""

import sys

from vferry.transfer.codecs import CodecError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PARAMETER = zstd.CompressionParameter
OPTIONS: dict[int, dict[int, int]] = {
    3: {PARAMETER.compression_level: 3, PARAMETER.hash_log: 16, PARAMETER.chain_log: 15}
}
"""What a level of ours is where the library's own is not meant."""


class ZstdCodec:
    """Keeps a compressor for each level that was asked for: its tables are worth more than a block."""

    in_software = False

    def __init__(self) -> None:
        self._compressors: dict[int, zstd.ZstdCompressor] = {}

    def encode(self, data: memoryview, level: int) -> bytes:
        compressor = self._compressors.get(level)
        if compressor is None:
            options = OPTIONS.get(level, {PARAMETER.compression_level: level})
            compressor = self._compressors[level] = zstd.ZstdCompressor(options=options)
        compressor.set_pledged_input_size(len(data))
        return compressor.compress(data, mode=zstd.ZstdCompressor.FLUSH_FRAME)

    def decode(self, data: memoryview, size: int) -> bytes:
        decompressor = zstd.ZstdDecompressor()
        try:
            found = decompressor.decompress(data, max_length=size)
        except zstd.ZstdError as error:
            raise CodecError(f"zstd: {error}") from error
        if len(found) != size or not decompressor.eof or decompressor.unused_data:
            raise CodecError(f"zstd: not {size} bytes")
        return found


def make() -> ZstdCodec:
    """Make one for a thread."""
    return ZstdCodec()
