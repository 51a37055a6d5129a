"""Differences of pages: what comes back, at both ends, and what is refused."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.transfer.differences import BITS_BYTES, DENSE, WORDS, Changes, Numbers, Pages, pack, subtract
from vferry.transfer.wire import WireError

SLOTS = 8
changes = st.lists(st.sampled_from([0, 1, 9, DENSE, DENSE + 1, WORDS]), min_size=1, max_size=SLOTS)


def next_pages(copies: Pages, slots: Numbers, changed: list[int], seed: int) -> Pages:
    """The pages in these slots, so many words of each changed."""
    chance, pages = np.random.default_rng(seed), copies[slots]
    for page, words in zip(pages, changed, strict=True):
        page[chance.choice(WORDS, words, replace=False)] ^= chance.integers(1, 1 << 63, words, np.uint64)
    return pages


@given(changes, st.integers(0, 1000))
def test_both_ends_have_the_pages_after(changed: list[int], seed: int) -> None:
    chance = np.random.default_rng(seed)
    here = chance.integers(0, 1 << 63, (SLOTS, WORDS), np.uint64)
    there, slots = here.copy(), chance.permutation(SLOTS)[: len(changed)]
    pages = next_pages(here, slots, changed, seed)
    sparse, differences = subtract(pages, here, slots)
    assert sparse.tolist() == [words <= DENSE for words in changed]
    assert (here[slots] == pages).all()
    packed = pack([differences])
    assert len(packed) == BITS_BYTES * sum(sparse) + 8 * sum(words for words in changed if words <= DENSE)
    came = Changes(memoryview(packed), sum(sparse))
    first = sum(sparse) // 2
    for part in (slots[sparse][:first], slots[sparse][first:]):
        came.apply(there, part)
    assert (there[slots[sparse]] == pages[sparse]).all()


def test_a_page_that_is_as_it_was_costs_its_bits() -> None:
    copies = np.ones((1, WORDS), np.uint64)
    _, differences = subtract(copies.copy(), copies, np.array([0]))
    assert pack([differences]) == bytes(BITS_BYTES)


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"", 1),
        (bytes(BITS_BYTES - 1), 1),
        (bytes(BITS_BYTES + 1), 1),
        (bytes(BITS_BYTES + 8), 1),
        (b"\x80" + bytes(BITS_BYTES - 1), 1),
        (b"\x80" + bytes(BITS_BYTES - 1 + 16), 1),
        (bytes(8), 0),
    ],
)
def test_what_are_no_differences_is_an_error(data: bytes, count: int) -> None:
    with pytest.raises(WireError):
        Changes(memoryview(data), count)


@given(st.binary(max_size=3 * BITS_BYTES), st.integers(0, 3))
def test_anything_else_is_an_error_or_changes_pages(data: bytes, count: int) -> None:
    with suppress(WireError):
        Changes(memoryview(data), count).apply(np.zeros((3, WORDS), np.uint64), np.arange(count))
