"""Which pages have a copy, and which give theirs up: decisions only."""

from math import gcd
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vferry.transfer.differences import Numbers

PAGES_LIMIT = 1 << 30
"""The first pages of a RAM block that may have copies: 4 TiB. What is looked up takes memory for those that do."""
GOLDEN = 0.618


class Placed(NamedTuple):
    """A slot for each page, all different, and whether the page's last copy is in it."""

    slots: Numbers
    known: npt.NDArray[np.bool_]


class SlotTable:
    """Slots for pages, which are known by their RAM block and number. When all are taken, new pages displace old ones.

    A hand goes round and passes over a page that was sent again since it was there last ("second chance"): the first
    pass through a large guest leaves some pages in it, the rounds after leave those that change. It goes in wide
    steps, because pages that change lie together: one by one it would take a copy just before its page comes again.
    """

    def __init__(self, slots: int, blocks: int) -> None:
        """`blocks` is how many RAM blocks there may be, numbered from 0."""
        self._limit = slots
        self._used = 0
        self._slot_of = [np.zeros(0, np.int32) for _ in range(blocks)]
        self._block = np.zeros(slots, np.uint16)
        self._page = np.zeros(slots, np.int64)
        self._again = np.zeros(slots, np.bool_)
        self._hand = 0
        self._step = next(step for step in range(int(slots * GOLDEN) or 1, 2 * slots + 1) if gcd(step, slots) == 1)

    def place(self, block: int, pages: Numbers) -> Placed | None:
        """Find or make a place for different pages of a RAM block; None if they are more than half the slots."""
        if len(pages) > self._limit // 2 or pages.max() >= PAGES_LIMIT:
            return None
        slot_of = self._reaching(block, int(pages.max()))
        slots = slot_of[pages].astype(np.int64) - 1
        known = slots >= 0
        self._again[slots[known]] = True
        if not known.all():
            new = pages[~known]
            slots[~known] = found = self._free(len(new), slots[known])
            slot_of[new] = found + 1
            self._block[found], self._page[found] = block, new
        return Placed(slots, known)

    def _reaching(self, block: int, page: int) -> npt.NDArray[np.int32]:
        """Slots plus one of a block's pages, 0 for none, at least up to `page`. Memory is taken as it is used."""
        slot_of = self._slot_of[block]
        if page >= len(slot_of):
            longer = np.zeros(1 << page.bit_length(), np.int32)
            longer[: len(slot_of)] = slot_of
            self._slot_of[block] = slot_of = longer
        return slot_of

    def _free(self, count: int, taken: Numbers) -> Numbers:
        """Slots that nobody has, then those of pages whose time has come; `taken` ones are not among them."""
        fresh = np.arange(self._used, min(self._used + count, self._limit))
        self._used += len(fresh)
        if len(fresh) == count:
            return fresh
        displaced = self._displace(count - len(fresh), np.concatenate([fresh, taken]))
        return np.concatenate([fresh, displaced])

    def _displace(self, count: int, taken: Numbers) -> Numbers:
        """Go on with the hand until it has found so many."""
        found: list[Numbers] = []
        while count:
            passed = (self._hand + self._step * np.arange(min(2 * count, self._limit))) % self._limit
            eligible = np.flatnonzero(~self._again[passed] & ~np.isin(passed, taken))[:count]
            if len(eligible) == count:
                passed = passed[: eligible[-1] + 1]
            self._hand = int(passed[-1] + self._step) % self._limit
            self._again[passed] = False
            found.append(passed[eligible])
            taken = np.concatenate([taken, passed[eligible]])
            count -= len(eligible)
        slots = np.concatenate(found)
        for block in np.unique(self._block[slots]).tolist():
            self._slot_of[block][self._page[slots[self._block[slots] == block]]] = 0
        return slots
