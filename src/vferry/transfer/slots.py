"""Which pages have a copy, and which give theirs up: decisions only."""

from collections.abc import Sequence
from typing import NamedTuple


class Placed(NamedTuple):
    """A slot for each page, all different, and whether the page's last copy is in it."""

    slots: Sequence[int]
    known: Sequence[bool]


class SlotTable:
    """Slots for pages, which are known by numbers. When all are taken, a new page takes the place of an old one.

    The hand goes round and passes over a page that was sent again since it was there last ("second chance"): the
    first pass through a large guest leaves some pages in it, the rounds after leave those that change.
    """

    def __init__(self, slots: int) -> None:
        self._limit = slots
        self._slot_of: dict[int, int] = {}
        self._keys: list[int] = []
        self._again = bytearray(slots)
        self._hand = 0

    def place(self, keys: Sequence[int]) -> Placed | None:
        """Find or make a place for different pages; None if there are more of them than half the slots."""
        if len(keys) > self._limit // 2:
            return None
        slots = [self._slot_of.get(key, -1) for key in keys]
        if max(slots) < 0 and len(self._keys) + len(keys) <= self._limit:
            return self._append(keys)
        known = [slot >= 0 for slot in slots]
        taken = set(slots)
        for index, key in enumerate(keys):
            if known[index]:
                self._again[slots[index]] = 1
            else:
                slots[index] = self._take(key, taken)
        return Placed(slots, known)

    def _append(self, keys: Sequence[int]) -> Placed:
        """Give new pages the next slots that were never used: most of the first pass."""
        first = len(self._keys)
        slots = range(first, first + len(keys))
        self._slot_of.update(zip(keys, slots, strict=True))
        self._keys += keys
        return Placed(slots, [False] * len(keys))

    def _take(self, key: int, taken: set[int]) -> int:
        slot = self._free(taken)
        if slot < len(self._keys):
            del self._slot_of[self._keys[slot]]
            self._keys[slot] = key
        else:
            self._keys.append(key)
        self._slot_of[key] = slot
        taken.add(slot)
        return slot

    def _free(self, taken: set[int]) -> int:
        """A slot that nobody has, or that of a page whose time has come."""
        if len(self._keys) < self._limit:
            return len(self._keys)
        while self._hand in taken or self._again[self._hand]:
            self._again[self._hand] = 0
            self._advance()
        slot = self._hand
        self._advance()
        return slot

    def _advance(self) -> None:
        self._hand = (self._hand + 1) % self._limit
