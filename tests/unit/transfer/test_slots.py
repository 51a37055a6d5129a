"""The table of slots: against what it promises, and for the guest whose changing pages lie together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.transfer.slots import PAGES_LIMIT, SlotTable

SLOTS = 64
packets = st.lists(
    st.tuples(st.integers(0, 2), st.sets(st.integers(0, 150), min_size=1, max_size=40).map(sorted)), max_size=60
)


@given(packets)
def test_a_page_that_is_known_has_the_slot_that_it_got_last(sent: list[tuple[int, list[int]]]) -> None:
    table, owner = SlotTable(SLOTS, 3), dict[int, tuple[int, int]]()
    for block, pages in sent:
        placed = table.place(block, np.array(pages))
        assert (placed is None) == (len(pages) > SLOTS // 2)
        if placed is None:
            continue
        slots = placed.slots.tolist()
        assert len(set(slots)) == len(pages)
        assert 0 <= min(slots) <= max(slots) < SLOTS
        for page, slot, known in zip(pages, slots, placed.known.tolist(), strict=True):
            assert known == (owner.get(slot) == (block, page))
            assert known or (block, page) not in owner.values()
        for slot, page in zip(slots, pages, strict=True):
            owner[slot] = block, page


def test_all_slots_are_used_before_a_page_gives_its_own_up() -> None:
    table = SlotTable(SLOTS, 1)
    slots = [table.place(0, np.arange(n, n + 8)) for n in range(0, SLOTS, 8)]
    assert np.concatenate([each.slots for each in slots if each]).tolist() == list(range(SLOTS))


def test_a_page_that_was_sent_again_stays() -> None:
    table = SlotTable(SLOTS, 1)
    often = np.arange(16)
    for n in range(200):
        placed = table.place(0, often)
        assert placed
        assert placed.known.all() or not n
        assert table.place(0, np.arange(100 + 16 * n, 116 + 16 * n))


@pytest.mark.parametrize("hot", [0, 600, 1100])
def test_the_copies_of_pages_that_lie_together_are_not_taken_before_they_come(hot: int) -> None:
    """A guest a quarter larger than its copies sends all of its memory, then a third of it again."""
    table, most = SlotTable(1024, 1), 1280
    for start in range(0, most, 16):
        table.place(0, np.arange(start, start + 16))
    found = 0
    for start in range(hot, min(hot + 400, most), 16):
        placed = table.place(0, np.arange(start, min(start + 16, most)))
        found += int(np.count_nonzero(placed.known)) if placed else 0
    assert found > 0.6 * min(400, most - hot)


def test_a_page_too_far_away_has_no_copy() -> None:
    assert SlotTable(SLOTS, 1).place(0, np.array([PAGES_LIMIT])) is None
