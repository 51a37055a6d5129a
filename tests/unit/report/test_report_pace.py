"""How long a copy still takes, as it is shown."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.report.pace import Pace


def test_by_what_the_pass_has_got_done() -> None:
    pace = Pace()
    assert pace.to_go(1000, 1, 50.0) is None
    assert pace.to_go(1000, 1, 60.0) is None
    assert pace.to_go(600, 1, 70.0) == pytest.approx(30.0)
    assert pace.to_go(0, 1, 80.0) == 0


def test_a_new_pass_begins_anew() -> None:
    pace = Pace()
    pace.to_go(1000, 1, 0.0)
    pace.to_go(10, 1, 1000.0)
    assert pace.to_go(8, 2, 1001.0) is None
    assert pace.to_go(4, 2, 1003.0) == pytest.approx(2.0)


def test_so_does_what_has_become_more() -> None:
    pace = Pace()
    pace.to_go(10, 1, 0.0)
    assert pace.to_go(100, 1, 50.0) is None
    assert pace.to_go(50, 1, 51.0) == pytest.approx(1.0)


@given(st.lists(st.integers(0, 1 << 40), min_size=2), st.floats(0.01, 100.0))
def test_at_a_steady_rate_it_is_right_from_the_second_look_on(steps: list[int], rate: float) -> None:
    left = sorted({*steps, 0}, reverse=True)
    pace = Pace()
    pace.to_go(left[0], 1, 0.0)
    for before, now in pairwise(left):
        assert now < before
        assert pace.to_go(now, 1, (left[0] - now) / rate) == pytest.approx(now / rate)
