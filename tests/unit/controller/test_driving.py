"""A migration that is driven from its plan to its report, on hosts of a fake fleet."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from fakes.clock import run_virtually
from fakes.journal import MemoryJournal, Witness
from fakes.samples import Case, make_fleet, make_plan
from vferry.controller import drive, operations
from vferry.controller.news import heard
from vferry.controller.state import State
from vferry.host.api import Host, Session
from vferry.migration.conductor import Conductor
from vferry.migration.stepper import Ending, Journal
from vferry.model.report import Status
from vferry.plan.plan import GuestSide, NetworkMode, TransferPlan
from vferry.plan.schedule import Abort, Pause

VIRTIO = Case(NetworkMode.VIRTIO, GuestSide.ADDRESSES)


class Audience(Witness):
    """Nothing is probed."""

    def probed(self, lost: int, gap_ms: float) -> None:
        raise AssertionError


def test_what_was_done_as_the_copy_stalled_is_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, state, audience = make_fleet(VIRTIO), State(root=tmp_path), Audience()
    fleet.pace.needs_ms = 600
    plan = make_plan(fleet, VIRTIO, transfer=TransferPlan(when_stalled=(Pause(400), Abort())))

    @asynccontextmanager
    async def open_host(name: str, session: Session, _state: State) -> AsyncIterator[Host]:
        yield fleet.host(name, session.operation, session.epoch)

    async def run_journaled(
        _path: Path, _run: str, body: Callable[[Journal], Awaitable[Ending]], _leave: Callable[[], None]
    ) -> Ending:
        return await body(MemoryJournal())

    monkeypatch.setattr(drive, "open_host", open_host)
    monkeypatch.setattr("vferry.controller.journal.run_journaled", run_journaled)
    folder = operations.create(state, plan)
    folder.write_state(replace(drive.first_state(plan, None, None, 0.0), measured=False))
    with folder.driven():
        report = run_virtually(drive.drive(state, folder, audience, Conductor.run, folder.name))
    assert report.status is Status.UNDONE
    assert report.transfer is not None
    assert [stall.action for stall in report.transfer.stalls] == ["pause", "abort"]
    assert folder.report() == report
    assert heard(folder).stalls == tuple(report.transfer.stalls) == tuple(audience.stalls)
