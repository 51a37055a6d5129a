"""Copies of the pages sent last, the same at both gateways, so that a page sent again travels as a difference.

The sender alone decides which pages are kept and where; each page that is sent has a fate, and most have a slot:

- PLAIN: as it is, and not kept.
- KEPT: as it is, and a copy goes into the slot.
- DIFFERENCE: as what differs from what is in the slot (`vferry.transfer.differences`), which becomes the page itself.
- RESIDENT: as the number of a page that is there already (`vferry.transfer.resident`); a copy goes into the slot.

Both sides must change a slot in the same order, though the pages of one RAM block come on any channel. So every slot
remembers the block that changed it last; a block that touches the slot next *needs* that one, says so in its header,
and is applied after it. What a block needs was decided before it, so nothing waits in a circle of blocks. This is finer
than waiting for all channels at the end of a round (SYNC), and does not depend on how QEMU uses its channels.

A circle through the destination's QEMU is left: it takes nothing more from a channel that is past a SYNC until all
channels are. So no block may need one of a later round; one that is late, as another channel was decided past the SYNC
before it, is sent PLAIN.
"""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vferry.transfer.block import Need
from vferry.transfer.differences import NONE, Changes, Differences, Numbers, Pages, pack, subtract
from vferry.transfer.multifd import PAGE_BYTES
from vferry.transfer.resident import NOWHERE, Lookup, Residents, reserve
from vferry.transfer.slots import Placed, SlotTable
from vferry.transfer.table import DIFFERENCE, KEPT, PLAIN, RESIDENT, Table
from vferry.transfer.wire import NO_HASHES, Hashes, WireError

RAMBLOCKS = 256
NOBODY = -1
NO_SLOTS = np.zeros(0, np.int64)


class SentPages(NamedTuple):
    """The pages of one packet and where they belong: the sender's view."""

    ramblock: bytes
    offsets: npt.NDArray[np.uint64]
    pages: Pages


class Moment(NamedTuple):
    """Where a block belongs: its channel, its place there, and how many SYNCs came before it on that channel."""

    channel: int
    sequence: int
    round: int


class Fates(NamedTuple):
    """What became of the pages of a block, in order, and the differences among them. No fates: all are PLAIN."""

    fates: bytes = b""
    slots: Numbers = NO_SLOTS
    residents: Numbers = NO_SLOTS
    needs: Sequence[Need] = ()
    differences: bytes = b""


class _Exchanged(NamedTuple):
    """The same for a packet."""

    fates: bytes
    slots: Numbers = NO_SLOTS
    residents: Numbers = NO_SLOTS
    differences: Differences = NONE


class SenderCopies:
    """The sender's copies. `exchange` may be called from the threads of all channels."""

    def __init__(self, slots: int, resident: Hashes = NO_HASHES) -> None:
        """Reserve `slots` × 4 KiB, which is taken from the system as slots are used for the first time."""
        self._pages = reserve(slots)
        self._lookup = Lookup(resident)
        self._channel = np.full(slots, NOBODY, np.int32)
        self._sequence = np.zeros(slots, np.uint32)
        self._table = SlotTable(slots, RAMBLOCKS)
        self._ramblocks: dict[bytes, int] = {}
        self._round = 0
        self._lock = threading.Lock()

    def exchange(self, packets: Sequence[SentPages], moment: Moment) -> Fates:
        """Decide the fates of a block's pages, of which all are of one round.

        The whole block is decided at once: two blocks may not build on each other.
        """
        needs: dict[int, int] = {}
        with self._lock:
            if not packets or moment.round < self._round:
                return Fates()
            self._round = moment.round
            found = [self._exchange(packet, needs, moment) for packet in packets]
        needs.pop(moment.channel, None)  # a channel's own blocks are applied in order anyway
        return Fates(
            b"".join(each.fates for each in found),
            np.concatenate([NO_SLOTS, *(each.slots for each in found)]),
            np.concatenate([NO_SLOTS, *(each.residents for each in found)]),
            [Need(*need) for need in needs.items()],
            pack([each.differences for each in found]),
        )

    def _exchange(self, packet: SentPages, needs: dict[int, int], moment: Moment) -> _Exchanged:
        pages = packet.pages
        placed = self._place(packet)
        if placed is None:
            return _Exchanged(bytes([PLAIN]) * len(pages))
        slots, is_known = placed
        self._add_needs(needs, slots)
        self._channel[slots], self._sequence[slots] = moment.channel, moment.sequence
        fates = np.full(len(pages), KEPT, np.uint8)
        differences = NONE
        if is_known.any():
            mine, own = (pages, slots) if is_known.all() else (pages[is_known], slots[is_known])
            sparse, differences = subtract(mine, self._pages, own)
            fates[np.flatnonzero(is_known)[sparse]] = DIFFERENCE
        residents = self._keep(pages, slots, ~is_known, fates) if not is_known.all() else NO_SLOTS
        return _Exchanged(fates.tobytes(), slots, residents, differences)

    def _keep(self, pages: Pages, slots: Numbers, new: npt.NDArray[np.bool_], fates: npt.NDArray[np.uint8]) -> Numbers:
        """Keep copies of the new pages, and find those that are resident; the numbers of these."""
        fresh, own = (pages, slots) if new.all() else (pages[new], slots[new])
        self._pages[_rows(own)] = fresh
        numbers = self._lookup.find(fresh)
        if numbers is None:
            return NO_SLOTS
        there = numbers != NOWHERE
        fates[np.flatnonzero(new)[there]] = RESIDENT
        found: Numbers = numbers[there]
        return found

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

    def __init__(self, slots: int, residents: Residents | None = None) -> None:
        """Reserve `slots` × 4 KiB, as the sender does."""
        self.slots = slots
        self._pages = reserve(slots)
        self._residents = residents

    def restore(self, packets: Sequence[Pages], table: Table, differences: memoryview) -> None:
        """Put the pages that were left out in their places among those of a block's packets; raises `WireError`.

        Threads of several channels may be in here at once: what a block needs keeps them from the same slots.
        """
        fate = np.frombuffer(table.fates, np.uint8)
        slot, resident = np.array(table.slots, np.int64), np.array(table.residents, np.int64)
        if len(fate) != sum(map(len, packets)) or len(slot) != np.count_nonzero(fate) or (fate > RESIDENT).any():
            raise WireError("fates of pages out of bounds")
        if (slot >= self.slots).any():
            raise WireError("slots out of bounds")
        known = self._residents.count if self._residents else 0
        if len(resident) != table.fates.count(RESIDENT) or (resident >= known).any():
            raise WireError("resident pages out of bounds")
        changes = Changes(differences, table.fates.count(DIFFERENCE))
        for pages in packets:
            mine, fate = fate[: len(pages)], fate[len(pages) :]
            there = np.count_nonzero(mine == RESIDENT)
            if there and self._residents:
                pages[mine == RESIDENT] = self._residents.at(resident[:there])
                resident = resident[there:]
            placed = np.count_nonzero(mine)
            self._restore(pages, mine, slot[:placed], changes)
            slot = slot[placed:]

    def _restore(self, pages: Pages, fate: npt.NDArray[np.uint8], slot: Numbers, changes: Changes) -> None:
        placed = fate[fate != PLAIN]
        different, new = slot[placed == DIFFERENCE], slot[placed != DIFFERENCE]
        if len(new):
            all_new = len(new) == len(pages)
            self._pages[_rows(new)] = pages if all_new else pages[(fate == KEPT) | (fate == RESIDENT)]
        changes.apply(self._pages, different)
        if len(different) == len(pages):
            self._pages.take(different, axis=0, out=pages, mode="clip")  # any other mode takes a copy of them first
        elif len(different):
            pages[fate == DIFFERENCE] = self._pages[different]


def _rows(slots: Numbers) -> Numbers | slice:
    """The same as a slice where they follow each other, which is copied at once: most of the first pass."""
    following = len(slots) and slots[-1] - slots[0] == len(slots) - 1 and (slots[1:] - slots[:-1] == 1).all()
    return slice(int(slots[0]), int(slots[-1]) + 1) if following else slots
