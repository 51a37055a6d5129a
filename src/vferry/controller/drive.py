"""Driving an operation from its plan to its report: probes around it, the engine under it, its folder beside it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Protocol

from msgspec.structs import replace

from vferry.controller.configuration import read_controller_configuration
from vferry.controller.hosts import open_host
from vferry.controller.news import News, heard, tell
from vferry.controller.northbound import Northbound
from vferry.controller.operations import RUNNING, OperationFolder, OperationState
from vferry.controller.probing import SETTLE_S, probing
from vferry.controller.room import NoRoom, free_reserve, room
from vferry.controller.state import State
from vferry.host.api import Host, Migration, Session
from vferry.migration.conductor import Conductor
from vferry.migration.record import Observer, StepRecord, now_text
from vferry.migration.report import Measured, make_report
from vferry.migration.stepper import Ending, Journal
from vferry.model.ovn import NORTHBOUND
from vferry.model.report import Phase, Report, Stall
from vferry.plan.plan import Plan

Act = Callable[[Conductor], Awaitable[Ending]]


class Audience(Observer, Protocol):
    """An observer that is told what the probes see, too."""

    def probed(self, lost: int, gap_ms: float) -> None:
        """Probes lost so far, and for how long there has been no answer."""
        ...


class Watcher:
    """Passes events on to the caller's observer, and keeps what other processes and the report need of them."""

    def __init__(self, folder: OperationFolder, state: OperationState, observer: Audience) -> None:
        self._folder = folder
        self._observer = observer
        self.state = state
        self.rates: list[tuple[float, float]] = []
        # What an earlier process has told is no news, but for what it has done.
        self._news = News(stalls=heard(folder).stalls)
        self._tell()

    @property
    def stalls(self) -> tuple[Stall, ...]:
        """What was done as the copy stalled, by an earlier process, too."""
        return self._news.stalls

    def phase(self, phase: Phase) -> None:
        self.state = replace(self.state, phase=phase, phase_began=time.monotonic())
        # Where there is none others see an earlier phase; the guest need not wait for that.
        with suppress(NoRoom), room():
            self._folder.write_state(self.state)
        self._observer.phase(phase)

    def started(self, phase: Phase, name: str, host: str) -> None:
        self._observer.started(phase, name, host)

    def ended(self, record: StepRecord) -> None:
        self._observer.ended(record)

    def progress(self, migration: Migration) -> None:
        if migration.wire_rate is not None:
            self.rates.append((time.monotonic(), migration.wire_rate))
        self._tell(migration=migration)
        self._observer.progress(migration)

    def stalled(self, stall: Stall) -> None:
        self._tell(stalls=(*self._news.stalls, stall))
        self._observer.stalled(stall)

    def probed(self, lost: int, gap_ms: float) -> None:
        self._tell(lost=lost, gap_ms=gap_ms)
        self._observer.probed(lost, gap_ms)

    def _tell(self, **news: Any) -> None:
        self._news = replace(self._news, **news)
        tell(self._folder, self._news)


async def drive(state: State, folder: OperationFolder, observer: Audience, act: Act, run: str) -> Report:
    """Carries `act` out on the operation's conductor and writes its report. The caller holds the lock.

    `run` names the run in the journal: the operation itself, or a later repair of it. Raises `NoRoom` before anything
    is done; once it is, a full disk ends nothing.
    """
    plan, operation = folder.plan(), folder.stored()
    watcher = Watcher(folder, replace(operation, status=RUNNING, exit=None), observer)
    with room():
        folder.write_state(watcher.state)
    probes = probing(state, folder, operation, watcher.probed)
    async with probes as stop_probing, _hosts(state, plan, operation.epoch) as hosts:
        ending = await _journaled(state, folder, plan, hosts, watcher, act, run)
        await asyncio.sleep(SETTLE_S)
        ended = time.monotonic()
        seen = await stop_probing()
    measured = Measured(
        began=operation.began,
        started=operation.started,
        ended=ended,
        probes=seen.probes,
        note=seen.note,
        tcp=seen.tcp,
        tcp_note=seen.tcp_note,
        rates=tuple(watcher.rates),
        stalls=watcher.stalls,
    )
    report = make_report(plan, ending, measured)
    state_then = replace(watcher.state, status=report.status.value, phase=Phase.DONE, exit=int(ending.exit))
    return _written(folder, report, state_then)


def _written(folder: OperationFolder, report: Report, state: OperationState) -> Report:
    """The report, which says so where it could not be written."""
    free_reserve(folder.root)
    try:
        with room():
            folder.write_report(report)
            folder.write_state(state)
    except NoRoom as problem:
        note = f"How it ended is not written down: {problem.message}. Free some, then: vferry operation recover"
        return replace(report, notes=[*report.notes, f"{note} {folder.name}"])
    return report


async def _journaled(
    state: State,
    folder: OperationFolder,
    plan: Plan,
    hosts: dict[str, Host],
    watcher: Watcher,
    act: Act,
    run: str,
) -> Ending:
    # The engine takes half a second to import, which a refused migration need not wait for.
    from vferry.controller.journal import run_journaled

    async def body(journal: Journal) -> Ending:
        return await act(Conductor(plan, hosts, journal, watcher, folder))

    return await run_journaled(state.journal, run, body, folder.leave_journal)


@asynccontextmanager
async def _hosts(state: State, plan: Plan, epoch: int) -> AsyncIterator[dict[str, Host]]:
    session = Session(operation=plan.operation, epoch=epoch)
    async with AsyncExitStack() as stack:
        hosts: dict[str, Host] = {
            name: await stack.enter_async_context(open_host(name, session, state))
            for name in (plan.source, plan.destination)
        }
        if plan.rebinds:
            hosts[NORTHBOUND] = Northbound(read_controller_configuration(state).ovn)
        yield hosts


def first_state(plan: Plan, probe_address: str | None, probe_from: str | None, began: float) -> OperationState:
    """The state of an operation that has just been created; `began` is CLOCK_MONOTONIC in seconds."""
    return OperationState(
        operation=plan.operation,
        guest=plan.guest,
        source=plan.source,
        destination=plan.destination,
        status=RUNNING,
        phase=Phase.CHECK,
        started=now_text(),
        began=began,
        probe_address=probe_address,
        probe_from=probe_from,
    )
