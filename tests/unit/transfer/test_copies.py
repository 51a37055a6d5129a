"""Copies of pages: what becomes of a page that is sent again, little changed or much, among others that are new."""

import random
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vferry.transfer.copies import Fates, Moment, ReceiverCopies, SenderCopies, SentPages
from vferry.transfer.differences import DENSE, WORDS, Pages
from vferry.transfer.table import DIFFERENCE, KEPT, Table

NUMBERS = 12


def changed(pages: dict[int, Pages], number: int, words: int, seed: int) -> None:
    """Change so many words of a page, each for certain."""
    places = np.random.default_rng(seed).choice(WORDS, words, replace=False)
    page = pages.setdefault(number, np.zeros(WORDS, np.uint64))
    page[places] += np.uint64(seed + 1)


turns = st.lists(
    st.dictionaries(
        st.integers(0, NUMBERS - 1), st.sampled_from([0, 1, 8, DENSE, DENSE + 1, WORDS]), min_size=1, max_size=NUMBERS
    ),
    min_size=1,
    max_size=5,
)


@given(turns, st.randoms(use_true_random=False))
def test_pages_come_back_and_only_those_that_changed_little_are_differences(
    turns: Sequence[dict[int, int]], chance: random.Random
) -> None:
    sender, receiver = SenderCopies(64), ReceiverCopies(64)
    pages: dict[int, Pages] = {}
    seen: set[int] = set()
    for sequence, turn in enumerate(turns):
        numbers = list(turn)
        chance.shuffle(numbers)
        for number in numbers:
            changed(pages, number, turn[number], sequence)
        sent = np.stack([pages[number] for number in numbers])
        offsets = np.array(numbers, np.uint64) * np.uint64(4096)
        found = sender.exchange([SentPages(b"pc.ram", offsets, sent)], Moment(0, sequence, 0))
        expected = [DIFFERENCE if number in seen and turn[number] <= DENSE else KEPT for number in numbers]
        assert list(found.fates) == expected
        sent[np.frombuffer(found.fates, np.uint8) == DIFFERENCE] = 0
        receiver.restore([sent], Table([0], found.fates, found.slots), memoryview(found.differences))
        assert (sent == np.stack([pages[number] for number in numbers])).all()
        seen |= turn.keys()


def test_a_block_that_is_late_is_plain_and_changes_nothing() -> None:
    sender = SenderCopies(64)
    sent = [SentPages(b"pc.ram", np.zeros(1, np.uint64), np.ones((1, WORDS), np.uint64))]
    sender.exchange(sent, Moment(0, 0, round=0))
    assert sender.exchange(sent, Moment(1, 0, round=1)).needs == [(0, 0)]
    assert sender.exchange(sent, Moment(2, 0, round=0)) == Fates()
    assert sender.exchange([], Moment(2, 1, round=9)) == Fates()
    assert sender.exchange(sent, Moment(3, 0, round=1)).needs == [(1, 0)]
