"""Differences between pages and their copies: which words differ, and by what. Pure functions on arrays.

On the wire, for all pages of a block that are differences, in order:

    64  bits of a page: which of its 512 words of 8 bytes differ, the first one's the highest bit of the first byte
    …   then the words that differ, 8 bytes each: the XOR of the page's with the copy's

So what a page that was sent before costs, at both ends, follows from what has changed in it: the rest of it is neither
encoded nor decoded.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vferry.transfer.multifd import PAGE_BYTES
from vferry.transfer.wire import WireError

Pages = npt.NDArray[np.uint64]
"""Pages, one a row."""
Numbers = npt.NDArray[np.int64]
WORDS = PAGE_BYTES // 8
SHIFT = WORDS.bit_length() - 1
BITS_BYTES = WORDS // 8
DENSE = WORDS * 3 // 4
"""A page of which more words than these have changed compresses better as it is."""
DIFFERENCE_LIMIT = BITS_BYTES + PAGE_BYTES
"""The most bytes of a page's difference."""


class Differences(NamedTuple):
    """The differences of some pages: their bits, 64 bytes a row, and their words."""

    bits: npt.NDArray[np.uint8]
    words: Pages


NONE = Differences(np.zeros((0, BITS_BYTES), np.uint8), np.zeros(0, np.uint64))


def subtract(pages: Pages, copies: Pages, slots: Numbers) -> tuple[npt.NDArray[np.bool_], Differences]:
    """Which of the pages are worth being differences to the copies in these slots, and these differences.

    The copies become the pages.
    """
    changed = copies[slots] != pages
    places = np.flatnonzero(changed)
    rows = places >> SHIFT
    sparse = np.bincount(rows, minlength=len(pages)) <= DENSE
    if not sparse.all():
        copies[slots[~sparse]] = pages[~sparse]
        kept = sparse[rows]
        places, rows, changed = places[kept], rows[kept], changed[sparse]
    held, at = copies.reshape(-1), _at(slots, rows, places)
    words = pages.reshape(-1)[places]
    differences = Differences(np.packbits(changed, axis=1), held[at] ^ words)
    held[at] = words
    return sparse, differences


def pack(parts: list[Differences]) -> bytes:
    """Encode the differences of a block."""
    return b"".join([*(part.bits.tobytes() for part in parts), *(part.words.tobytes() for part in parts)])


class Changes:
    """The differences of a block as they came, to be taken in order. Raises `WireError` where they are none."""

    def __init__(self, data: memoryview, count: int) -> None:
        """`count` is of how many pages they are."""
        words_at = count * BITS_BYTES
        if len(data) < words_at or (len(data) - words_at) % 8:
            raise WireError("differences truncated")
        bits = np.unpackbits(np.frombuffer(data[:words_at], np.uint8))
        self._places = np.flatnonzero(bits.view(np.bool_))
        self._words = np.frombuffer(data[words_at:], np.uint64)
        self._row = 0
        if len(self._places) != len(self._words):
            raise WireError("differences out of bounds")

    def apply(self, copies: Pages, slots: Numbers) -> None:
        """Turn the copies in these slots into the next pages."""
        first, self._row = self._row * WORDS, self._row + len(slots)
        begin, end = np.searchsorted(self._places, (first, self._row * WORDS)).tolist()
        places = self._places[begin:end] - first
        copies.reshape(-1)[_at(slots, places >> SHIFT, places)] ^= self._words[begin:end]


def _at(slots: Numbers, rows: Numbers, places: Numbers) -> Numbers:
    """Where the words at these places, in these rows of the slots', are among all words."""
    return slots[rows] * WORDS + (places & WORDS - 1)
