"""Reading blocks from one stream of the peer gateway and decoding them. One thread's work."""

from typing import NamedTuple

from vferry.transfer.block import BlockHeader, unpack_block
from vferry.transfer.codecs import CODECS, Codec, make_codec
from vferry.transfer.frame import fill, next_frame
from vferry.transfer.stream import Stream
from vferry.transfer.wire import FRAME_LIMIT, WireError


class Decoded(NamedTuple):
    """A block's header, and what was encoded, as it was before: valid until the next block."""

    header: BlockHeader
    content: memoryview
    wire_bytes: int
    in_software: bool


class Decoder:
    """The blocks of one stream."""

    def __init__(self, peer: Stream) -> None:
        self._peer = peer
        self._codecs: dict[int, Codec] = {}
        self._buffer = memoryview(bytearray(FRAME_LIMIT))

    def read(self) -> Decoded | None:
        """The next block; None after the end frame. Raises OSError, and `WireError` for whatever is no block."""
        size = next_frame(self._peer)
        if not size:
            return None
        fill(self._peer, self._buffer[:size])
        header, encoded = unpack_block(self._buffer[:size])
        codec = self._codecs.get(header.codec)
        if codec is None:
            codec = self._codecs[header.codec] = _make_codec(header.codec)
        content = memoryview(codec.decode(encoded, header.content_bytes))
        return Decoded(header, content, size, codec.in_software)


def _make_codec(number: int) -> Codec:
    try:
        return make_codec(CODECS[number])
    except (KeyError, ImportError, OSError) as error:
        raise WireError(f"no codec {number} here") from error
