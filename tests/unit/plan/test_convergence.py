"""When a copy counts as stalled, and by how much its pause is stretched."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.host.api import Migration
from vferry.plan.convergence import Course, follow


def course(
    looks: Sequence[tuple[int, int]], most_ms: int = 1000, *, seconds: float = 2.0, rate: float = 0.0
) -> list[int]:
    """The pauses allowed after looks at a copy, one in so many seconds: passes and bytes that are left."""
    found = Course(allowed_ms=300)
    allowed = []
    for number, (passes, left) in enumerate(looks):
        now = Migration(rounds=passes, remaining_bytes=left, rate=rate)
        found = follow(found, now, 1000.0 + number * seconds, most_ms)
        allowed.append(found.allowed_ms)
    return allowed


@pytest.mark.parametrize(
    ("left", "allowed"),
    [
        pytest.param([1000, 800, 600, 500, 400, 300], [300] * 6, id="it gets less"),
        pytest.param([1000, 800, 790, 780, 770], [300, 300, 300, 300, 450], id="by too little"),
        pytest.param([1000] * 8, [300, 300, 300, 450, 675, 1000, 1000, 1000], id="it stalls, and there is a limit"),
        pytest.param([*[1000] * 4, *[500] * 4], [300, 300, 300, 450, 450, 450, 450, 675], id="again"),
    ],
)
def test_the_pause_grows_while_the_copy_stalls(left: list[int], allowed: list[int]) -> None:
    assert course([*enumerate(left, 1)]) == allowed


def test_short_passes_alone_are_no_stall() -> None:
    """The look at the second pass came late, and saw little left."""
    halving = [(1, 1000), (2, 20), (3, 500), (4, 250), (5, 125), (6, 62), (7, 31)]
    assert course(halving, seconds=0.2) == [300] * 7


def test_the_pause_becomes_what_is_left_over_the_rate() -> None:
    """40 GB that are written again and again, copied at 1 GB a second."""
    steady = [(passes, 40_000_000_000) for passes in range(1, 6)]
    assert course(steady, 60_000, seconds=40.0, rate=1e9) == [300, 300, 300, 40_000, 60_000]


def test_what_another_controller_has_allowed_holds() -> None:
    found = follow(Course(allowed_ms=300), Migration(rounds=9, remaining_bytes=5, downtime_ms=4000), 0.0, 10_000)
    assert found.allowed_ms == 4000


def test_nothing_is_done_within_a_pass() -> None:
    assert course([(1, 1000), (1, 10), (2, 1000), (2, 900), (2, 500), (3, 1000), (3, 3), (4, 1000)])[-1] == 450


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 1 << 40)), max_size=60),
    st.integers(1, 100_000),
)
def test_the_pause_never_gets_less_nor_more_than_is_allowed(looks: list[tuple[int, int]], most_ms: int) -> None:
    found = course(sorted(looks), most_ms)
    assert found == sorted(found)
    assert all(300 <= each <= max(300, most_ms) for each in found)
