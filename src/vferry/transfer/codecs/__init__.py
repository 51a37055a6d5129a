"""Codecs of blocks: a file each, and an entry in `vferry.model.compression`. What one needs is loaded when it is used.

A codec's file has `make`, which makes one for a thread; that of a codec for hardware has `in_hardware`, too, which
says whether it has its device here.
"""

import importlib
from collections.abc import Iterable
from typing import Protocol

from vferry.model.compression import FOR_HARDWARE, TRAITS
from vferry.transfer.wire import WireError

NUMBERS = {name: traits.number for name, traits in TRAITS.items()}
CODECS = {number: name for name, number in NUMBERS.items()}
"""By their numbers in the protocol."""


class CodecError(WireError):
    """Encoded bytes are damaged, or do not decode to the size that was announced. Give the connection up."""


class Codec(Protocol):
    """Compresses blocks, each by itself. An instance belongs to one thread and keeps what is worth keeping.

    Both methods let go of Python's lock while they work, and what they return is valid until the next call.
    """

    in_software: bool
    """Whether the last block was done in software by a codec that is there for its hardware."""

    def encode(self, data: memoryview, level: int) -> bytes | memoryview:
        """Compress; `level` is the codec's own, larger being smaller and slower."""

    def decode(self, data: memoryview, size: int) -> bytes | memoryview:
        """Undo `encode` into exactly `size` bytes, never more memory than that; raises `CodecError`."""


def make_codec(name: str) -> Codec:
    """Make a codec for one thread; raises ImportError if what it needs is not installed."""
    codec: Codec = importlib.import_module(f"{__name__}.{name}").make()
    return codec


def available(names: Iterable[str] = NUMBERS) -> frozenset[str]:
    """Tell which codecs work here."""
    return frozenset(name for name in names if _works(name))


def in_hardware(names: Iterable[str]) -> frozenset[str]:
    """Those of the codecs that are there for a device, and have it here."""
    found = FOR_HARDWARE.intersection(names)
    return frozenset(name for name in found if importlib.import_module(f"{__name__}.{name}").in_hardware())


def _works(name: str) -> bool:
    try:
        make_codec(name)
    except (ImportError, OSError):
        return False
    return True
