"""What a migration's memory may be compressed with, and what that has brought: words that all rooms share."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct, field


class Codec(StrEnum):
    """What the gateways compress with; docs/gateway.md says what each is."""

    AUTO = "auto"
    NONE = "none"
    LZ4 = "lz4"
    ZSTD = "zstd"
    DEFLATE = "deflate"
    QATZIP = "qatzip"


CODECS = tuple(codec.value for codec in Codec)
AUTOMATIC = frozenset({Codec.LZ4, Codec.ZSTD})
"""What `AUTO` chooses among, beside none."""

MOST_STREAMS = 16
DELTA_MIB = 1024
"""The usual memory for copies of pages, at each gateway."""
MOST_DELTA_MIB = 1 << 20

Streams = Annotated[int, Meta(ge=1, le=MOST_STREAMS)]
DeltaMib = Annotated[int, Meta(ge=0, le=MOST_DELTA_MIB)]
Name = Annotated[str, Meta(max_length=32)]
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class CodecShare(Struct, frozen=True, kw_only=True):
    """What one codec has done. `software_blocks`: without the hardware that it is there for."""

    blocks: Count
    stream_bytes: Count
    wire_bytes: Count
    software_blocks: Count = 0


class Compressed(Struct, frozen=True, kw_only=True):
    """What a gateway has compressed: QEMU's stream, and what of it went over the wire.

    `pages` are those in multifd's packets, with `zero_pages` and `delta_pages`, which went as a difference to the copy
    sent before, among them.
    """

    stream_bytes: Count
    wire_bytes: Count
    pages: Count = 0
    zero_pages: Count = 0
    delta_pages: Count = 0
    codecs: Annotated[dict[Name, CodecShare], Meta(max_length=16)] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """How many bytes of the stream went over the wire as one."""
        return round(self.stream_bytes / self.wire_bytes, 3) if self.wire_bytes else None
