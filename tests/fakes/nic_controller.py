"""One machine's controllers that put NICs on something else, one after the other, against a fleet of fakes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import vferry.controller.journal
from fakes.clock import run_virtually
from fakes.fleet import Fleet
from fakes.journal import MemoryJournal
from fakes.nic_moves import CASES
from fakes.samples import GUEST, MAC, SOURCE
from vferry.controller import guest_nic, nic_driving, nic_moves, northbound, operations, stepping
from vferry.controller.nic_moves import Way
from vferry.controller.operations import OperationState
from vferry.controller.state import State
from vferry.host.api import Host, Session
from vferry.migration.stepper import Ending, Journal
from vferry.model.ovn import KnownPort, LogicalPort
from vferry.model.report import Report
from vferry.plan.nic_plan import NicAssessment, NicTarget

TO = CASES[1].to
"""To the relay."""


class Controller:
    """All on one state folder, with the journals of their runs."""

    def __init__(self, directory: Path, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = State(root=directory)
        self.fleet = fleet
        self.journals: dict[str, MemoryJournal] = {}
        self.told: list[str] = []
        self.ovn: str | None = None
        """Why OVN says nothing; else it has any port, which is this guest's."""
        for module in (guest_nic, nic_driving, stepping):
            monkeypatch.setattr(module, "open_host", self.open)
        monkeypatch.setattr(northbound, "ask", self._ask_ovn)
        monkeypatch.setattr(vferry.controller.journal, "run_journaled", self._journaled)

    def assess(self, to: NicTarget = TO, logical_port: str | None = None) -> NicAssessment:
        return run_virtually(guest_nic.assess(self.state, SOURCE, GUEST, MAC, to, logical_port))

    def move(self, to: NicTarget = TO, logical_port: str | None = None) -> NicAssessment:
        """What `vferry guest nic` does."""

        async def work() -> NicAssessment:
            found = await guest_nic.assess(self.state, SOURCE, GUEST, MAC, to, logical_port)
            assert found.plan is not None, found.errors
            await nic_driving.move(self.state, found.plan, self.told.append)
            return found

        return run_virtually(work())

    def recover(self) -> list[Report]:
        """What `vferry operation recover` does."""
        reports = []
        for folder in operations.to_recover(self.state):
            with folder.driven():
                reports.append(run_virtually(nic_driving.recover(self.state, folder, self.told.append)))
        return reports

    def kept(self) -> list[Way]:
        """What is left to be done with each operation that has not ended."""
        found = (nic_moves.find(self.state, each.operation) for each in self.shown())
        return [each.way for each in found if each]

    def shown(self) -> list[OperationState]:
        """What `vferry operation list` shows."""
        return [folder.state() for folder in operations.every(self.state)]

    def stands(self) -> list[tuple[str, int | None]]:
        return [(each.status, each.exit) for each in self.shown()]

    def claims(self) -> int:
        return len(self.fleet.hosts[SOURCE].claims.all())

    @asynccontextmanager
    async def open(self, name: str, session: Session | None = None, state: State | None = None) -> AsyncIterator[Host]:
        """A host, in place of `open_host`."""
        assert state in (None, self.state)
        yield self.fleet.host(name, session.operation, session.epoch) if session else self.fleet.host(name, "nobody")

    async def _ask_ovn(self, state: State, names: Iterable[str]) -> dict[str, KnownPort] | str:
        assert state is self.state
        return self.ovn or {name: KnownPort(binding=LogicalPort(name=name), macs=(MAC,)) for name in names}

    async def _journaled(self, journal: Path, run: str, body: Callable[[Journal], Awaitable[Ending]]) -> Ending:
        assert journal == self.state.journal
        return await body(self.journals.setdefault(run, MemoryJournal()))
