"""The engine itself: what is raised in a run is not taken for its end."""

import asyncio
from pathlib import Path

import pytest

from vferry.controller.journal import run_journaled
from vferry.migration.record import Outcome, StepRecord
from vferry.migration.stepper import Ending, Journal
from vferry.model.problem import Exit
from vferry.model.report import Phase


class Run:
    """Two steps. `broken`: where a pipe is that nobody reads any more."""

    def __init__(self) -> None:
        self.worked: list[str] = []
        self.broken = ""

    def breaks(self, place: str) -> None:
        if self.broken == place:
            raise BrokenPipeError(32, "Broken pipe")

    async def step(self, journal: Journal, name: str) -> StepRecord:
        async def work() -> StepRecord:
            self.breaks(f"in {name}")
            self.worked.append(name)
            return StepRecord(
                phase=Phase.PREPARE, name=name, host="h", outcome=Outcome.DONE, start=0.0, end=1.0, started=""
            )

        record = await journal.once(name, work)
        self.breaks(f"after {name}")
        return record

    async def body(self, journal: Journal) -> Ending:
        records = tuple([await self.step(journal, name) for name in ("one", "two")])
        return Ending(exit=Exit.DONE, reason="", records=records, at_destination=True)


@pytest.mark.parametrize("place", ["in one", "after one", "in two", "after two"])
async def test_what_is_raised_is_not_recorded_and_whoever_takes_it_up_goes_on(tmp_path: Path, place: str) -> None:
    """As where the progress of a migration was written to a pipe whose reader had gone."""
    run = Run()
    run.broken = place
    for _ in range(3):  # by a new run, and by those that take it up
        with pytest.raises(BrokenPipeError):
            async with asyncio.timeout(20):
                await run_journaled(tmp_path / "journal.sqlite", "op-1", run.body)
    run.broken = ""
    ending = await run_journaled(tmp_path / "journal.sqlite", "op-1", run.body)
    assert (ending.exit, [record.name for record in ending.records]) == (Exit.DONE, ["one", "two"])
    assert run.worked == ["one", "two"], "each is done once"
    assert await run_journaled(tmp_path / "journal.sqlite", "op-1", run.body) == ending
    assert run.worked == ["one", "two"]
