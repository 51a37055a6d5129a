"""When a copy counts as stalled, and what is done about it, in which order."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.host.api import Migration
from vferry.model.report import Stall
from vferry.plan.convergence import Course, follow, taken
from vferry.plan.schedule import Abort, Pause, Schedule, Throttle, pauses

SECOND = (Pause(1000),)
Look = tuple[int, int]
"""Passes, and bytes that are left."""


def courses(
    looks: Sequence[Look],
    schedule: Schedule = SECOND,
    *,
    seconds: float = 2.0,
    rate: float = 0.0,
    throttles: Sequence[int] = (),
) -> Iterator[tuple[Course, list[Stall]]]:
    """How a copy goes, one look in so many seconds, and what is done at each. QEMU slows it as `throttles` says."""
    found = Course(allowed_ms=300)
    for number, (passes, left) in enumerate(looks):
        slowed = throttles[min(number, len(throttles) - 1)] if throttles else 0
        now = Migration(rounds=passes, remaining_bytes=left, rate=rate, throttle=slowed, started_age_s=number * seconds)
        before, found = found, follow(found, now, 1000.0 + number * seconds, schedule)
        yield found, [*taken(before, found, now)]


def allowed(looks: Sequence[Look], schedule: Schedule = SECOND, **how: float) -> list[int]:
    """The pauses that are allowed after each look."""
    return [course.allowed_ms for course, _ in courses(looks, schedule, **how)]  # type: ignore[arg-type]


def stalled(passes: int) -> list[Look]:
    """A copy of which the same is left at every pass."""
    return [(number, 1000) for number in range(1, passes + 1)]


def done(looks: Sequence[Look], schedule: Schedule, throttles: Sequence[int] = ()) -> list[tuple[int, str]]:
    """What is done, and at which pass."""
    found = courses(looks, schedule, throttles=throttles)
    return [(stall.round, _short(stall)) for _, stalls in found for stall in stalls]


def _short(stall: Stall) -> str:
    return " ".join(str(each) for each in (stall.action, stall.pause_ms, stall.throttle) if each is not None)


@pytest.mark.parametrize(
    ("left", "found"),
    [
        pytest.param([1000, 800, 600, 500, 400, 300], [300] * 6, id="it gets less"),
        pytest.param([1000, 800, 790, 780, 770], [300, 300, 300, 300, 450], id="by too little"),
        pytest.param([1000] * 8, [300, 300, 300, 450, 675, 1000, 1000, 1000], id="it stalls, and there is a limit"),
        pytest.param([*[1000] * 4, *[500] * 4], [300, 300, 300, 450, 450, 450, 450, 675], id="again"),
    ],
)
def test_the_pause_grows_while_the_copy_stalls(left: list[int], found: list[int]) -> None:
    assert allowed([*enumerate(left, 1)]) == found


def test_short_passes_alone_are_no_stall() -> None:
    """The look at the second pass came late, and saw little left."""
    halving = [(1, 1000), (2, 20), (3, 500), (4, 250), (5, 125), (6, 62), (7, 31)]
    assert allowed(halving, seconds=0.2) == [300] * 7


def test_the_pause_becomes_what_is_left_over_the_rate() -> None:
    """40 GB that are written again and again, copied at 1 GB a second."""
    steady = [(passes, 40_000_000_000) for passes in range(1, 6)]
    assert allowed(steady, (Pause(60_000),), seconds=40.0, rate=1e9) == [300, 300, 300, 40_000, 60_000]


def test_what_another_controller_has_allowed_holds() -> None:
    now = Migration(rounds=9, remaining_bytes=5, downtime_ms=4000)
    found = follow(Course(allowed_ms=300), now, 0.0, (Pause(10_000),))
    assert found.allowed_ms == 4000
    assert [*taken(Course(allowed_ms=300), found, now)] == [], "it was done before"


def test_nothing_is_done_within_a_pass() -> None:
    assert allowed([(1, 1000), (1, 10), (2, 1000), (2, 900), (2, 500), (3, 1000), (3, 3), (4, 1000)])[-1] == 450


@pytest.mark.parametrize(
    ("schedule", "found"),
    [
        pytest.param((), [], id="off unless allowed"),
        pytest.param((Throttle(),), [], id="that is QEMU's to do"),
        pytest.param((Abort(),), [(4, "abort")], id="at once"),
        pytest.param((Pause(300), Abort()), [(4, "abort")], id="a pause that it has"),
        pytest.param((Pause(400), Abort()), [(4, "pause 400"), (7, "abort")], id="a pause is waited for"),
        pytest.param(
            (Pause(500), Pause(2000)),
            [(4, "pause 450"), (5, "pause 500"), (8, "pause 750"), (9, "pause 1125"), (10, "pause 1688")],
            id="the next pause is, too",
        ),
        pytest.param(
            (Pause(310), Pause(320), Abort()), [(4, "pause 310"), (7, "pause 320"), (10, "abort")], id="in turn"
        ),
    ],
)
def test_actions_are_taken_in_turn_as_the_copy_goes_on_stalling(
    schedule: Schedule, found: list[tuple[int, str]]
) -> None:
    assert done(stalled(10), schedule) == found


def test_a_gain_puts_the_next_action_off() -> None:
    looks = [*stalled(6), (7, 800), *((passes, 800) for passes in range(8, 11))]
    assert done(looks, (Pause(400), Abort())) == [(4, "pause 400"), (10, "abort")]


@pytest.mark.parametrize(
    ("throttles", "found"),
    [
        ([0], [(4, "pause 400"), (7, "abort")]),
        ([20], [(4, "pause 400"), (7, "abort")]),
        (
            [0, 0, 20, 20, 30, 30, 40],
            [(3, "throttle 20"), (4, "pause 400"), (5, "throttle 30"), (7, "throttle 40"), (10, "abort")],
        ),
    ],
)
def test_it_is_not_aborted_while_qemu_slows_the_guest_further(
    throttles: list[int], found: list[tuple[int, str]]
) -> None:
    assert done(stalled(10), (Throttle(), Pause(400), Abort()), throttles) == found


def test_what_is_done_has_its_pass_and_its_second() -> None:
    stalls = [each for _, stalls in courses(stalled(4), (Pause(400),), throttles=[0, 0, 0, 20]) for each in stalls]
    assert stalls == [
        Stall(action="throttle", round=4, after_s=6.0, throttle=20),
        Stall(action="pause", round=4, after_s=6.0, pause_ms=400),
    ]


LOOKS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 1 << 40)), max_size=60).map(sorted)
PAUSES = st.sets(st.integers(1, 100_000), max_size=4).map(lambda most: tuple(map(Pause, sorted(most))))


@given(LOOKS, PAUSES, st.booleans())
def test_never_more_is_done_than_is_allowed(looks: list[Look], allowing: Schedule, abort: bool) -> None:  # noqa: FBT001
    schedule: Schedule = (*allowing, Abort()) if abort else allowing
    most = max((300, *pauses(schedule)))
    before = 300
    for course, _ in courses(looks, schedule):
        assert before <= course.allowed_ms <= most, "the pause never gets less"
        assert not course.given_up or (abort and course.allowed_ms == most), "the last thing that is done"
        before = course.allowed_ms


@given(LOOKS, PAUSES)
def test_all_that_is_done_is_told(looks: list[Look], schedule: Schedule) -> None:
    found = [*courses(looks, schedule)]
    told = [stall.pause_ms for _, stalls in found for stall in stalls]
    raised = [course.allowed_ms for course, _ in found]
    assert told == [each for before, each in zip([300, *raised], raised, strict=False) if each > before]


@given(PAUSES)
def test_a_copy_that_stalls_for_good_comes_to_the_end_of_its_schedule(schedule: Schedule) -> None:
    *_, (course, _) = courses(stalled(60), (*schedule, Abort()))
    assert course.given_up
