"""A migration that its controller keeps no longer, and `operation recover` of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fakes.clock import run_virtually
from fakes.fleet import Fleet
from fakes.journal import MemoryJournal, Witness
from fakes.samples import DESTINATION, SOURCE, Drive
from vferry.controller import operations, recovery
from vferry.controller.operations import OperationFolder, OperationState
from vferry.host.api import Host, Session
from vferry.migration.conductor import Conductor
from vferry.migration.stepper import Ending
from vferry.model.ovn import NORTHBOUND
from vferry.model.problem import Exit
from vferry.model.report import Phase


class Kept:
    """What the folder `op-1` of `directory` has of it."""

    def __init__(self, drive: Drive, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drive = drive
        self.folder = OperationFolder(directory / "op-1")
        self.folder.root.mkdir(parents=True)
        (self.folder.root / "plan.json").write_bytes(msgspec.json.encode(drive.plan))
        monkeypatch.setattr(recovery, "open_host", self._open)
        monkeypatch.setattr(recovery, "drive", self._drive)
        monkeypatch.setattr(operations, "successor", lambda _state, _folder: None)

    @property
    def fleet(self) -> Fleet:
        return self.drive.fleet

    def stands(self, status: str, code: Exit | None) -> None:
        plan = self.drive.plan
        self.folder.write_state(
            OperationState(
                operation=plan.operation,
                guest=plan.guest,
                source=plan.source,
                destination=plan.destination,
                status=status,
                phase=Phase.DONE,
                started="",
                epoch=self.drive.epoch or 1,
                exit=None if code is None else int(code),
            )
        )

    def recover(self, keeper: str | None = None) -> Ending:
        ending: Any = run_virtually(recovery.recover(None, self.folder, None, keeper))  # type: ignore[arg-type]
        assert isinstance(ending, Ending)
        return ending

    @asynccontextmanager
    async def _open(self, name: str, session: Session, _state: object) -> AsyncIterator[Host]:
        self.drive.epoch = session.epoch
        yield self.fleet.host(name, session.operation, session.epoch)

    async def _drive(self, _state: object, folder: OperationFolder, _observer: object, act: Any, run: str) -> Ending:
        plan = self.drive.plan
        names = (SOURCE, DESTINATION, *((NORTHBOUND,) if plan.rebinds else ()))
        hosts = {name: self.fleet.host(name, plan.operation, self.drive.epoch) for name in names}
        journal = self.drive.journal if run == folder.name else MemoryJournal()
        ending: Ending = await act(Conductor(plan, hosts, journal, Witness(), patience_s=60.0))
        return ending
