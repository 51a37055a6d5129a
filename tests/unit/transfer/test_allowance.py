"""How much may be held back, by the link's speed and the number of streams."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.transfer.allowance import BLOCK_BYTES, HELD_S, LEAST_BYTES, Allowance, Seen, allow, learn
from vferry.transfer.endpoint import UNSENT_BYTES

RATES = st.floats(1e5, 1e11)
STREAMS = st.integers(1, 260)
MBIT = 125_000
FREE = Allowance()


@given(RATES, STREAMS)
def test_all_streams_together_hold_what_the_link_carries_in_the_time(rate: float, streams: int) -> None:
    unsent, block = allow(rate, streams)
    assert streams * (unsent + block) <= max(rate * HELD_S, 2 * streams * LEAST_BYTES)
    assert LEAST_BYTES <= unsent <= UNSENT_BYTES
    assert LEAST_BYTES <= block <= BLOCK_BYTES


@given(RATES, RATES, STREAMS, STREAMS)
def test_a_faster_link_or_fewer_streams_never_allow_less(one: float, other: float, few: int, many: int) -> None:
    few, many = sorted((few, many))
    slow, fast = sorted((one, other))
    for more, less in zip(allow(fast, few), allow(slow, many), strict=True):
        assert more >= less


@pytest.mark.parametrize(
    ("mbit", "streams", "bytes_each"),
    [(math.inf, 16, FREE), (10_000, 16, FREE), (400, 2, FREE), (400, 0, FREE), (50, 2, (78125, 234375))],
)
def test_links(mbit: float, streams: int, bytes_each: tuple[int, int]) -> None:
    assert allow(mbit * MBIT, streams) == bytes_each


FULL = Seen(1_000_000, FREE.unsent_bytes)
DRAINED = Seen(1_000_000, 0)
IDLE = Seen(100, 0)


@pytest.mark.parametrize(
    ("rate", "streams", "then"),
    [
        (math.inf, [FULL, FULL], 1_000_000),
        (3_000_000, [FULL, FULL], 2_000_000),
        (500_000, [FULL, FULL], 750_000),
        (3_000_000, [DRAINED, DRAINED], 6_000_000),
        (100_000, [DRAINED, DRAINED], 1_000_000),
        (math.inf, [DRAINED], math.inf),
        (3_000_000, [FULL, IDLE, IDLE, IDLE, IDLE, IDLE], 1_750_000),
        (3_000_000, [FULL, DRAINED, DRAINED, DRAINED, DRAINED, DRAINED], 6_000_000),
        (3_000_000, [Seen(0, FREE.unsent_bytes)], 1_500_000),
        (3_000_000, [], 6_000_000),
    ],
    ids=[
        "first measured",
        "slower",
        "faster",
        "nothing waits",
        "nothing waits, faster than believed",
        "never waited",
        "idle streams do not count",
        "one burst among many",
        "nothing is taken",
        "no streams",
    ],
)
def test_the_link_is_measured_while_it_is_what_is_slow(rate: float, streams: list[Seen], then: float) -> None:
    assert learn(rate, streams, FREE, 2.0) == pytest.approx(then, rel=1e-3)
