"""What has become of a step: written to the journal, shown as an event, and a row of the report."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from msgspec import Struct, field

from vferry.host.api import Migration
from vferry.model.problem import Exit, Problem
from vferry.model.report import Phase, Stall


class Outcome(StrEnum):
    """How a step ended."""

    DONE = "done"
    FAILED = "failed"
    ABORTED = "aborted"
    UNCERTAIN = "uncertain"
    """Nobody can tell where the guest runs."""
    UNDONE = "undone"
    UNDO_FAILED = "undo-failed"


class StepRecord(Struct, frozen=True, kw_only=True):
    """One step's end. `start` and `end` are this machine's CLOCK_MONOTONIC, in seconds."""

    phase: Phase
    name: str
    host: str
    outcome: Outcome
    start: float
    end: float
    started: str
    detail: str = ""
    code: str | None = None
    """The problem's code, where there was one."""
    remedy: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    """What later steps or the report need of it; nothing secret."""

    @property
    def ok(self) -> bool:
        return self.outcome in (Outcome.DONE, Outcome.UNDONE)


class Observer(Protocol):
    """Who is told how a migration goes: the terminal, the list of operations, tests."""

    def phase(self, phase: Phase) -> None: ...

    def started(self, phase: Phase, name: str, host: str) -> None: ...

    def ended(self, record: StepRecord) -> None: ...

    def progress(self, migration: Migration) -> None: ...

    def stalled(self, stall: Stall) -> None: ...


class Requests(Protocol):
    """What the operator asks of a migration that runs, from whichever process; looked at again and again."""

    def abort_asked(self) -> bool: ...

    def bandwidth_asked(self) -> int | None:
        """Bytes per second that the copy may use from now on; 0 lifts the limit, None asks for nothing."""
        ...


class NoRequests:
    """Nobody asks."""

    def abort_asked(self) -> bool:
        return False

    def bandwidth_asked(self) -> int | None:
        return None


class Aborted(Problem):
    """The operator has asked for an end; raised by the running step when it sees the flag."""

    def __init__(self) -> None:
        super().__init__("aborted", "The migration was aborted on request", exit=Exit.ABORTED)


def now_text() -> str:
    """The wall clock, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
