"""What a migration's memory may be compressed with, and what that has brought: words that all rooms share."""

import sys
from enum import StrEnum
from typing import Annotated, NamedTuple, Self

from msgspec import Meta, Struct, field


class Usual(NamedTuple):
    """What a codec's level usually does: its speed, in bytes before encoding a second, and its ratio.

    To programs in memory, on one core of a server of 2020; what matters are the proportions.
    """

    level: int
    speed: float
    ratio: float


class Traits(NamedTuple):
    """All that is to be known of a codec outside its file in `transfer/codecs`, without loading it."""

    number: int
    """In the gateways' protocol, where it never changes its meaning."""
    level: int = 1
    """Its own level that is used where it was asked for by name."""
    module: str | None = None
    """The module of Python's that it needs."""
    library: str | None = None
    """The system's library that it needs."""
    package: str | None = None
    """What has that library, in words."""
    for_hardware: bool = False
    """Whether it is there for a device. Asked for by name, it does by software what it has none for."""
    usual: tuple[Usual, ...] = ()
    """The levels that `auto` chooses among. Without any it never takes the codec; one for hardware, on that alone."""

    @property
    def automatic(self) -> bool:
        """Whether `auto` takes it on any host."""
        return bool(self.usual) and not self.for_hardware


class Codec(StrEnum):
    """What the gateways compress with; docs/gateway.md says what each is."""

    _value_: str
    traits: Traits | None

    def __new__(cls, name: str, traits: Traits | None = None) -> Self:
        """Each is its name."""
        codec = str.__new__(cls, name)
        codec._value_ = name
        codec.traits = traits
        return codec

    AUTO = "auto"
    NONE = "none", Traits(0, level=0, usual=(Usual(0, 4e9, 1.0),))
    LZ4 = "lz4", Traits(1, module="lz4", usual=(Usual(1, 600e6, 1.7),))
    ZSTD = (
        "zstd",
        Traits(
            2,
            module="compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd",
            usual=(Usual(1, 400e6, 2.1), Usual(3, 275e6, 2.3)),
        ),
    )
    DEFLATE = "deflate", Traits(3, module="isal")
    QATZIP = (
        "qatzip",
        Traits(
            4,
            library="libqatzip.so.3",
            package="libqatzip 1.3 (Debian 13: libqatzip3)",
            for_hardware=True,
            usual=(Usual(1, 1e9, 2.1),),  # a guess
        ),
    )


CODECS = tuple(codec.value for codec in Codec)
TRAITS = {codec.value: codec.traits for codec in Codec if codec.traits}
"""By the names of codecs; auto, which is a choice among them, has no entry."""
FOR_HARDWARE = frozenset(name for name, traits in TRAITS.items() if traits.for_hardware)
AUTOMATIC = frozenset(codec for codec in Codec if codec.traits and codec.traits.automatic) - {Codec.NONE}
"""What `AUTO` chooses among, beside none, on any host."""

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

    `pages` are those in multifd's packets. Among them are `zero_pages`, `delta_pages`, which went as a difference to
    the copy sent before, and `resident_pages`, which were at the destination already.
    """

    stream_bytes: Count
    wire_bytes: Count
    pages: Count = 0
    zero_pages: Count = 0
    delta_pages: Count = 0
    resident_pages: Count = 0
    codecs: Annotated[dict[Name, CodecShare], Meta(max_length=16)] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """How many bytes of the stream went over the wire as one."""
        return round(self.stream_bytes / self.wire_bytes, 3) if self.wire_bytes else None
