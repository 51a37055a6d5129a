"""A migration over a fake fleet, journaled by the true engine, in /mnt, which is full from a phase on.

A process of its own, as SQLite writes where a path truly leads. Prints how it ended, and what others see of it.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from fakes.journal import Witness
from fakes.samples import GUEST, Case, make_fleet, make_plan
from fakes.small_disk import SmallDisk
from vferry.controller import drive, migrate, operations
from vferry.controller.room import NoRoom
from vferry.controller.state import State
from vferry.host.api import Host
from vferry.migration.conductor import Conductor
from vferry.migration.stepper import Ending
from vferry.model.report import Phase, Report
from vferry.plan.plan import GuestSide, NetworkMode, Plan

BEGIN, JOURNAL, END = "begin", "journal", "end"
"""Moments beside the phases: before anything, as there is room for all but a journal, and after the last step."""
CASE = Case(NetworkMode.SWITCH, GuestSide.ADDRESSES)
DISK = SmallDisk(Path("/mnt"))


class Filling(Witness):
    """Fills the disk as a phase begins, and again after whatever has made room."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self._when = when
        self._full = False

    def phase(self, phase: Phase) -> None:
        super().phase(phase)
        self._full |= phase == self._when
        if self._full:
            DISK.fill()

    def probed(self, lost: int, gap_ms: float) -> None:
        """There are no probes."""


def main(when: str) -> dict[str, Any]:
    """What came of it where the disk is full from `when` on."""
    state = State(root=DISK.root)
    fleet = make_fleet(CASE)
    plan = make_plan(fleet, CASE)

    @asynccontextmanager
    async def hosts(_state: State, _plan: Plan, epoch: int) -> AsyncIterator[dict[str, Host]]:
        yield {name: fleet.host(name, plan.operation, epoch) for name in (plan.source, plan.destination)}

    audience, report, refused = Filling(when), None, None
    with mock.patch.object(drive, "_hosts", hosts):
        if when == BEGIN:
            DISK.fill()
        try:
            report = _migrate(state, plan, audience, when)
        except NoRoom as problem:
            refused = str(problem)
    folders = operations.every(state)
    return {
        "report": report and {"status": report.status, "notes": report.notes},
        "refused": refused,
        "runs_on": fleet.running(GUEST),
        "asked": len(fleet.calls),
        "operations": [{"status": each.stored().status, "journaled": each.is_journaled()} for each in folders],
        "files": sorted(path.name for each in (DISK.root / "operations").glob("*") for path in each.iterdir()),
    }


def _migrate(state: State, plan: Plan, audience: Filling, when: str) -> Report:
    request = mock.Mock(measured=False, probe_address=None, probe_tcp=None)
    survey = mock.Mock(probe_address=None, probe_from=None)
    prepared = mock.Mock(request=request, survey=survey, began=0.0, started="2026-01-01T00:00:00.000Z")

    async def act(conductor: Conductor) -> Ending:
        ending = await conductor.run()
        if when == END:
            DISK.fill()
        return ending

    with migrate.begun(state, prepared, plan) as folder:
        if when == JOURNAL:
            DISK.fill(leave=64 << 10)
        return asyncio.run(drive.drive(state, folder, audience, act, folder.name))


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
