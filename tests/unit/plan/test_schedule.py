"""What may be done when a copy stalls, as it is written."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.plan.schedule import Abort, Pause, Schedule, Throttle, adjusted, parse, pauses

ALL = (Throttle(), Pause(1000), Pause(5000), Abort())


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Any that may be written."""
    most = sorted(draw(st.sets(st.integers(1, 30_000), max_size=4)))
    first, last = draw(st.booleans()), draw(st.booleans())
    return (*(Throttle(),) * first, *map(Pause, most), *(Abort(),) * last)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ((), ()),
        (("throttle", "pause 1", "pause 5", "abort"), ALL),
        ((" throttle ", "pause  1.0", " pause 5.000"), ALL[:3]),
        (("pause 0.0001",), (Pause(1),)),
        (("pause 0.45", "pause 30"), (Pause(450), Pause(30_000))),
        (("abort",), (Abort(),)),
    ],
)
def test_what_is_written_is_what_is_done(written: tuple[str, ...], found: Schedule) -> None:
    assert parse(written) == found


@given(schedules())
def test_every_schedule_can_be_written(schedule: Schedule) -> None:
    assert parse(map(str, schedule)) == schedule
    assert pauses(schedule) == tuple(sorted(pauses(schedule)))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (("pause",), "'pause' is no action: write throttle, pause SECONDS (such as pause 5), or abort"),
        (("pause 1", "give-up"), "'give-up' is no action: write throttle"),
        (("pause 5s",), "'pause 5s' is no action"),
        (("pause -1",), "'pause -1' is no action"),
        (("pause nan",), "'pause nan' is no action"),
        (("pause ٣",), "'pause ٣' is no action"),
        (("",), "'' is no action"),
        (("pause 0",), "pause 0: a pause is longer than 0 s, and 30 s at most"),
        (("pause 30.1",), "pause 30.1: a pause is longer than 0 s, and 30 s at most"),
        (("pause 1", "throttle"), "throttle stands first, and once: QEMU cannot be told to in the middle of a copy"),
        (("throttle", "throttle"), "throttle stands first, and once"),
        (("abort", "throttle"), "throttle stands first, and once"),
        (("abort", "pause 5"), "abort stands last: after it there is nothing left to do with pause 5"),
        (("abort", "abort"), "abort stands last"),
        (("pause 5", "pause 1"), "pause 1 must be longer than the pause 5 before it"),
        (("pause 1", "pause 1.0001"), "pause 1 must be longer than the pause 1 before it"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_write(written: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        parse(written)


@pytest.mark.parametrize(
    ("schedule", "pause_s", "throttle", "found"),
    [
        ((), None, None, ()),
        ((), 2.0, None, (Pause(2000),)),
        ((), None, True, (Throttle(),)),
        ((), 0.0001, True, (Throttle(), Pause(1))),
        (ALL, None, None, ALL),
        (ALL, 0.5, None, (Throttle(), Pause(500), Abort())),
        (ALL, None, False, ALL[1:]),
        (ALL[1:], 3.0, True, (Throttle(), Pause(3000), Abort())),
    ],
)
def test_the_short_forms_take_the_place_of_what_they_are_short_for(
    schedule: Schedule,
    pause_s: float | None,
    throttle: bool | None,  # noqa: FBT001
    found: Schedule,
) -> None:
    assert adjusted(schedule, pause_s, throttle) == found


@given(schedules(), st.none() | st.floats(0.001, 30), st.none() | st.booleans())
def test_with_the_short_forms_it_is_one_that_can_be_written(
    schedule: Schedule,
    pause_s: float | None,
    throttle: bool | None,  # noqa: FBT001
) -> None:
    found = adjusted(schedule, pause_s, throttle)
    assert parse(map(str, found)) == found
