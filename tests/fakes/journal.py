"""A journal in memory, and an observer that remembers what it was told."""

from collections.abc import Awaitable, Callable

import msgspec

from vferry.host.api import Migration
from vferry.migration.record import StepRecord
from vferry.model.report import Phase, Stall


class MemoryJournal:
    """Keeps the record of each step that ended, as JSON, like the engine."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.worked: list[str] = []
        """The keys of the steps that were carried out to their end, not remembered."""

    async def once(self, key: str, work: Callable[[], Awaitable[StepRecord]]) -> StepRecord:
        if key not in self.kept:
            self.kept[key] = msgspec.json.encode(await work())
            self.worked.append(key)
        return msgspec.json.decode(self.kept[key], type=StepRecord)


class Witness:
    """An observer."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.begun: list[tuple[Phase, str, str]] = []
        self.records: list[StepRecord] = []
        self.samples: list[Migration] = []
        self.stalls: list[Stall] = []

    def phase(self, phase: Phase) -> None:
        self.phases.append(phase)

    def started(self, phase: Phase, name: str, host: str) -> None:
        self.begun.append((phase, name, host))

    def ended(self, record: StepRecord) -> None:
        self.records.append(record)

    def progress(self, migration: Migration) -> None:
        self.samples.append(migration)

    def stalled(self, stall: Stall) -> None:
        self.stalls.append(stall)
