"""When a copy counts as stalled, and by how much its pause is stretched."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.host.api import Migration
from vferry.plan.convergence import Course, follow


def course(looks: Sequence[tuple[int, int]], most_ms: int = 1000) -> list[int]:
    """The pauses allowed after looks at a copy: passes and bytes that are left."""
    found = Course(allowed_ms=300)
    allowed = []
    for passes, left in looks:
        found = follow(found, Migration(rounds=passes, remaining_bytes=left), most_ms)
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
