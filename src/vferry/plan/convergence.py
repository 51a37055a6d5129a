"""When a copy stalls, and what is done then: the actions of its plan's schedule, one after the other.

A pass of the copy sends what the guest has written during the one before. As long as that gets less, the copy comes to
its end; where it does not, only a longer pause ends it, and how long is known: what is left, over the rate. QEMU alone
decides when to slow a guest down that it may slow down: that is only noted here.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from vferry.host.api import Migration
from vferry.model.report import Stall
from vferry.plan.schedule import Abort, Action, Pause, Schedule

PASSES, SECONDS = 3, 5.0
"""Without gain until the copy counts as stalled: passes alone say little, for they may be short."""
GAIN = 0.9
"""What is left must get less than this share of the least before."""
STEP = 1.5
"""By what the pause is raised at least, pass by pass, while the copy stays stalled."""


class Mark(NamedTuple):
    """A moment of the copy: its pass, and seconds of the clock that `follow` is given."""

    passes: int = 0
    at: float = 0.0

    def is_past(self, now: "Mark") -> bool:
        """Whether it is so long ago that a copy without gain since has stalled."""
        return now.passes - self.passes >= PASSES and now.at - self.at >= SECONDS


class Course(Struct, frozen=True, kw_only=True):
    """How a copy has gone so far, and what has been done about it."""

    allowed_ms: int
    """The pause that it may need now."""
    throttle: int = 0
    """By how much QEMU has slowed the guest down, in percent."""
    given_up: bool = False
    """The schedule says to abort it."""
    passes: int = 0
    least: float = math.inf
    """Bytes that were left at the beginning of the best pass."""
    since: Mark = Mark()
    """When the copy had its last gain, or got all of a pause: it is not stalled until some time after."""
    slowed: Mark = Mark()
    """When QEMU was last seen to slow the guest down further."""


def follow(course: Course, now: Migration, at: float, schedule: Schedule) -> Course:
    """The course after one more look at the copy; something is done at most once a pass."""
    here = Mark(now.rounds, at)
    # It may have been raised by a controller that is no more.
    course = replace(course, allowed_ms=max(course.allowed_ms, now.downtime_ms))
    if now.throttle > course.throttle:
        course = replace(course, throttle=now.throttle, slowed=here)
    if here.passes <= course.passes:
        return course
    course = replace(course, passes=here.passes)
    if now.remaining_bytes < course.least * GAIN:
        return replace(course, least=now.remaining_bytes, since=here)
    match _due(schedule, course.allowed_ms):
        case Pause(most_ms) if course.since.is_past(here):
            raised = min(most_ms, _raised(course, now))
            return replace(course, allowed_ms=raised, since=here if raised == most_ms else course.since)
        case Abort() if course.since.is_past(here) and course.slowed.is_past(here):
            return replace(course, given_up=True)
    return course


def _due(schedule: Schedule, allowed_ms: int) -> Action | None:
    """The first action that has not been carried out, where the guest's pause may last so long."""
    for action in schedule:
        if isinstance(action, Abort) or (isinstance(action, Pause) and action.most_ms > allowed_ms):
            return action
    return None


def _raised(course: Course, now: Migration) -> int:
    needed = now.remaining_bytes / now.rate * 1000 if now.rate else 0.0
    return math.ceil(max(course.allowed_ms * STEP, needed))


def taken(before: Course, after: Course, now: Migration) -> Iterator[Stall]:
    """What is done at a look that leads from one course to another, as the report has it."""

    def stall(action: str, **figures: int) -> Stall:
        return Stall(action=action, round=now.rounds, after_s=round(now.started_age_s or 0.0, 3), **figures)

    # What the first look finds was done before, as where another controller is no more.
    if after.throttle > before.throttle and before.passes:
        yield stall("throttle", throttle=after.throttle)
    if after.allowed_ms > max(before.allowed_ms, now.downtime_ms):
        yield stall("pause", pause_ms=after.allowed_ms)
    if after.given_up and not before.given_up:
        yield stall("abort")
