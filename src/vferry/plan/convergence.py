"""When a copy stalls, and what is done then: the pause that QEMU may need is raised, within what was allowed.

A pass of the copy sends what the guest has written during the one before. As long as that gets less, the copy comes to
its end; where it does not, only a longer pause ends it, and how long is known: what is left, over the rate.
"""

import math

from msgspec import Struct
from msgspec.structs import replace

from vferry.host.api import Migration

PASSES, SECONDS = 3, 5.0
"""Without gain until the copy counts as stalled: passes alone say little, for they may be short."""
GAIN = 0.9
"""What is left must get less than this share of the least before."""
STEP = 1.5
"""By what the pause is raised at least, pass by pass, while the copy stays stalled."""


class Course(Struct, frozen=True, kw_only=True):
    """How a copy has gone so far, and the pause that it may need now."""

    allowed_ms: int
    passes: int = 0
    least: float = math.inf
    """Bytes that were left at the beginning of the best pass."""
    gained: int = 0
    """The pass that brought the last gain."""
    gained_at: float = 0.0
    """When that was seen, in seconds of the clock that `follow` is given."""


def follow(course: Course, now: Migration, at: float, most_ms: int) -> Course:
    """The course after one more look at the copy; the pause is raised at most to `most_ms`, once a pass."""
    # It may have been raised by a controller that is no more.
    course = replace(course, allowed_ms=max(course.allowed_ms, now.downtime_ms))
    if now.rounds <= course.passes:
        return course
    left, passes = now.remaining_bytes, now.rounds
    if left < course.least * GAIN:
        return replace(course, passes=passes, least=left, gained=passes, gained_at=at)
    course = replace(course, passes=passes)
    if passes - course.gained < PASSES or at - course.gained_at < SECONDS:
        return course
    needed = left / now.rate * 1000 if now.rate else 0.0
    raised = math.ceil(max(course.allowed_ms * STEP, needed))
    return replace(course, allowed_ms=max(course.allowed_ms, min(most_ms, raised)))
