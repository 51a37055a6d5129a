"""What may be done when a copy stalls: actions in their order, as the configuration and the command write them.

Nothing else is done. Without any of them a copy that stalls goes on until its deadline.
"""

import re
from collections.abc import Iterable
from itertools import pairwise

from msgspec import Struct

LONGEST_PAUSE_S = 30
"""More cannot be allowed: in its pause QEMU answers nobody."""


class Throttle(Struct, frozen=True, tag="throttle"):
    """QEMU slows the guest's processors down. It is made ready to as the copy starts, and cannot be later."""

    def __str__(self) -> str:
        return "throttle"


class Pause(Struct, frozen=True, tag="pause"):
    """The guest may be paused for longer, in the end for so long."""

    most_ms: int

    def __str__(self) -> str:
        return f"pause {self.most_ms / 1000:g}"


class Abort(Struct, frozen=True, tag="abort"):
    """The migration is undone, and does not wait for its deadline."""

    def __str__(self) -> str:
        return "abort"


Action = Throttle | Pause | Abort
Schedule = tuple[Action, ...]


def parse(written: Iterable[str]) -> Schedule:
    """A schedule from words such as ``pause 5``. ValueError says what is wrong with them, and what to write."""
    schedule = tuple(map(_action, written))
    for before, after in pairwise(schedule):
        match before, after:
            case _, Throttle():
                raise ValueError("throttle stands first, and once: QEMU cannot be told to in the middle of a copy")
            case Abort(), _:
                raise ValueError(f"abort stands last: after it there is nothing left to do with {after}")
            case Pause(), Pause() if after.most_ms <= before.most_ms:
                raise ValueError(f"{after} must be longer than the {before} before it")
    return schedule


def _action(written: str) -> Action:
    match written.split():
        case ["throttle"]:
            return Throttle()
        case ["pause", seconds] if re.fullmatch(r"[0-9]+(\.[0-9]+)?", seconds, re.ASCII):
            if not 0 < float(seconds) <= LONGEST_PAUSE_S:
                raise ValueError(f"{written.strip()}: a pause is longer than 0 s, and {LONGEST_PAUSE_S} s at most")
            return _pause(float(seconds))
        case ["abort"]:
            return Abort()
    raise ValueError(f"{written.strip()!r} is no action: write throttle, pause SECONDS (such as pause 5), or abort")


def _pause(seconds: float) -> Pause:
    return Pause(max(1, round(seconds * 1000)))


def adjusted(schedule: Schedule, pause_s: float | None, throttle: bool | None) -> Schedule:  # noqa: FBT001
    """With one pause in place of its own, and with throttling or without; what is None stays as it is."""

    def its(kind: type[Action]) -> Schedule:
        return tuple(action for action in schedule if isinstance(action, kind))

    return (
        *(its(Throttle) if throttle is None else (Throttle(),) * throttle),
        *(its(Pause) if pause_s is None else (_pause(pause_s),)),
        *its(Abort),
    )


def pauses(schedule: Schedule) -> tuple[int, ...]:
    """The pauses that it allows, in ms: each is longer than the one before."""
    return tuple(action.most_ms for action in schedule if isinstance(action, Pause))
