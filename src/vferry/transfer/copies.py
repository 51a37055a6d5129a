"""Copies of the pages sent last, the same at both gateways, so that a page sent again travels as a difference.

The sender alone decides which pages are kept and where; each page that is sent has a fate, and most have a slot:

- PLAIN: as it is, and not kept.
- KEPT: as it is, and a copy goes into the slot.
- DIFFERENCE: as the XOR with what is in the slot; the page itself goes there after.

Both sides must change a slot in the same order, though the pages of one RAM block come on any channel. So every slot
remembers the block that changed it last; a block that touches the slot next *needs* that one, says so in its header,
and is applied after it. What a block needs was decided before it, so nothing waits in a circle. This is finer than
waiting for all channels at the end of a round (SYNC), and does not depend on how QEMU uses its channels.
"""

import mmap
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vferry.transfer.block import Need
from vferry.transfer.multifd import PAGE_BYTES
from vferry.transfer.slots import Numbers, Placed, SlotTable
from vferry.transfer.table import WORDS, Pages
from vferry.transfer.wire import WireError

PLAIN, KEPT, DIFFERENCE = range(3)
# A page of which more than this share of 8-byte words has changed compresses better as it is.
DENSE = WORDS * 3 // 4
RAMBLOCKS = 256
NOBODY = -1
NO_SLOTS = np.zeros(0, np.int64)


class SentPages(NamedTuple):
    """The pages of one packet and where they belong: the sender's view."""

    ramblock: bytes
    offsets: npt.NDArray[np.uint64]
    pages: Pages


class Fates(NamedTuple):
    """What became of the pages of a block, in order."""

    fates: bytes
    slots: Numbers
    needs: Sequence[Need]


class SenderCopies:
    """The sender's copies. `exchange` may be called from the threads of all channels."""

    def __init__(self, slots: int) -> None:
        """Reserve `slots` × 4 KiB, which is taken from the system as slots are used for the first time."""
        self._pages = _reserve(slots)
        self._channel = np.full(slots, NOBODY, np.int32)
        self._sequence = np.zeros(slots, np.uint32)
        self._table = SlotTable(slots, RAMBLOCKS)
        self._ramblocks: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def exchange(self, packets: Sequence[SentPages], channel: int, sequence: int) -> Fates:
        """Decide the fates of a block's pages, turning those with a difference into it in place.

        The whole block is decided at once: two blocks may not build on each other.
        """
        fates: list[bytes] = []
        slots: list[Numbers] = []
        needs: dict[int, int] = {}
        with self._lock:
            for packet in packets:
                packet_fates, packet_slots = self._exchange(packet, needs, channel, sequence)
                fates.append(packet_fates)
                slots.append(packet_slots)
        needs.pop(channel, None)  # a channel's own blocks are applied in order anyway
        return Fates(b"".join(fates), np.concatenate([NO_SLOTS, *slots]), [Need(*need) for need in needs.items()])

    def _exchange(self, packet: SentPages, needs: dict[int, int], channel: int, sequence: int) -> tuple[bytes, Numbers]:
        pages = packet.pages
        placed = self._place(packet)
        if placed is None:
            return bytes([PLAIN]) * len(pages), NO_SLOTS
        slots, is_known = placed
        self._add_needs(needs, slots)
        self._channel[slots], self._sequence[slots] = channel, sequence
        fates = np.full(len(pages), KEPT, np.uint8)
        rows, known = _rows(slots), np.flatnonzero(is_known)
        if not len(known):
            self._pages[rows] = pages
            return fates.tobytes(), slots
        before = self._pages[slots[known]]
        self._pages[rows] = pages
        sparse = _subtract(pages, known, before)
        fates[known[sparse]] = DIFFERENCE
        dense = known[~sparse]
        if len(dense):
            pages[dense] = self._pages[slots[dense]]
        return fates.tobytes(), slots

    def _place(self, packet: SentPages) -> Placed | None:
        """Numbers for the pages; None for a RAM block too many, or a packet with a page twice."""
        numbers = (packet.offsets // PAGE_BYTES).astype(np.int64)
        if (packet.offsets % PAGE_BYTES).any() or len(set(numbers.tolist())) < len(numbers):
            return None
        block = self._ramblocks.setdefault(packet.ramblock, len(self._ramblocks))
        if block >= RAMBLOCKS:
            del self._ramblocks[packet.ramblock]
            return None
        return self._table.place(block, numbers)

    def _add_needs(self, needs: dict[int, int], slots: Numbers) -> None:
        channels, sequences = self._channel[slots], self._sequence[slots]
        for channel in set(channels.tolist()) - {NOBODY}:
            latest = int(sequences[channels == channel].max())
            needs[channel] = max(latest, needs.get(channel, 0))


class ReceiverCopies:
    """The receiver's copies, which do what the sender has decided."""

    def __init__(self, slots: int) -> None:
        """Reserve `slots` × 4 KiB, as the sender does."""
        self.slots = slots
        self._pages = _reserve(slots)

    def restore(self, packets: Sequence[Pages], fates: bytes, slots: npt.ArrayLike) -> None:
        """Turn the differences among the pages of a block's packets into pages, in place; raises `WireError`.

        Threads of several channels may be in here at once: what a block needs keeps them from the same slots.
        """
        fate = np.frombuffer(fates, np.uint8)
        slot = np.array(slots, np.int64)
        if len(fate) != sum(map(len, packets)) or len(slot) != np.count_nonzero(fate) or (fate > DIFFERENCE).any():
            raise WireError("fates of pages out of bounds")
        if (slot >= self.slots).any():
            raise WireError("slots out of bounds")
        for pages in packets:
            mine, fate = fate[: len(pages)], fate[len(pages) :]
            placed = np.count_nonzero(mine)
            self._restore(pages, mine, slot[:placed])
            slot = slot[placed:]

    def _restore(self, pages: Pages, fate: npt.NDArray[np.uint8], slot: Numbers) -> None:
        rows = _rows(slot)
        if (fate == DIFFERENCE).all():
            pages ^= self._pages[rows]
        elif (fate == DIFFERENCE).any():
            different = np.flatnonzero(fate == DIFFERENCE)
            pages[different] ^= self._pages[slot[fate[fate != PLAIN] == DIFFERENCE]]
        self._pages[rows] = pages if len(slot) == len(pages) else pages[fate != PLAIN]


def _subtract(pages: Pages, known: Numbers, before: Pages) -> npt.NDArray[np.bool_]:
    """Turn the `known` ones of the pages into their difference to what was `before`; which of these are worth it."""
    if len(known) == len(pages):  # most of the time, and then in place: each copy costs as much as the difference
        pages ^= before
        return _is_sparse(pages)
    before ^= pages[known]
    pages[known] = before
    return _is_sparse(before)


def _is_sparse(pages: Pages) -> npt.NDArray[np.bool_]:
    """Whether no more than `DENSE` words of a page are other than zero; eight of them are counted at once."""
    eights: npt.NDArray[np.uint64] = np.add.reduce((pages != 0).view(np.uint64), axis=1)
    counts: Numbers = eights.view(np.uint8).reshape(-1, 8).sum(axis=1, dtype=np.int64)
    return counts <= DENSE


def _rows(slots: Numbers) -> Numbers | slice:
    """The same as a slice where they follow each other, which is copied at once: most of the first pass."""
    following = len(slots) and slots[-1] - slots[0] == len(slots) - 1 and (slots[1:] - slots[:-1] == 1).all()
    return slice(int(slots[0]), int(slots[-1]) + 1) if following else slots


def _reserve(slots: int) -> Pages:
    """Memory for `slots` pages, in huge pages: a fault for each small one costs more than copying to it."""
    memory = mmap.mmap(-1, slots * PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint64).reshape(slots, WORDS)
