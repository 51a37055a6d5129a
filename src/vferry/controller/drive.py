"""Driving an operation from its plan to its report: probes around it, the engine under it, its folder beside it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from msgspec.structs import replace

from vferry.controller.configuration import read_controller_configuration
from vferry.controller.hosts import open_host
from vferry.controller.operations import RUNNING, OperationFolder, OperationState
from vferry.controller.state import State
from vferry.host.api import Migration, Session
from vferry.host.client import RemoteHost
from vferry.migration.conductor import Conductor, Ending, Journal
from vferry.migration.record import Observer, StepRecord, now_text
from vferry.migration.report import Measured, make_report
from vferry.model.problem import Problem
from vferry.model.report import Phase, Report
from vferry.plan.plan import Plan
from vferry.probe.record import ProbeRecord
from vferry.probe.session import ProbeSession

_SETTLE_S = 0.5
"""Probes before the first change and after the last one, so that both have a baseline."""

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

    def phase(self, phase: Phase) -> None:
        self.state = replace(self.state, phase=phase)
        self._folder.write_state(self.state)
        self._observer.phase(phase)

    def started(self, phase: Phase, name: str, host: str) -> None:
        self._observer.started(phase, name, host)

    def ended(self, record: StepRecord) -> None:
        self._observer.ended(record)

    def progress(self, migration: Migration) -> None:
        if migration.wire_rate is not None:
            self.rates.append((time.monotonic(), migration.wire_rate))
        self._observer.progress(migration)


async def drive(state: State, folder: OperationFolder, observer: Audience, act: Act, run: str) -> Report:
    """Carries `act` out on the operation's conductor and writes its report. The caller holds the lock.

    `run` names the run in the journal: the operation itself, or a later repair of it.
    """
    plan, operation = folder.plan(), folder.stored()
    watcher = Watcher(folder, replace(operation, status=RUNNING, exit=None), observer)
    folder.write_state(watcher.state)
    async with _probing(state, folder, operation, observer) as probing, _hosts(state, plan, operation.epoch) as hosts:
        ending = await _journaled(state, folder, plan, hosts, watcher, act, run)
        await asyncio.sleep(_SETTLE_S)
        probes, note = await probing()
    measured = Measured(
        began=operation.began,
        started=operation.started,
        ended=time.monotonic(),
        probes=probes,
        note=note,
        rates=tuple(watcher.rates),
    )
    report = make_report(plan, ending, measured)
    folder.write_report(report)
    folder.write_state(replace(watcher.state, status=report.status.value, phase=Phase.DONE, exit=int(ending.exit)))
    return report


async def _journaled(
    state: State,
    folder: OperationFolder,
    plan: Plan,
    hosts: dict[str, RemoteHost],
    watcher: Watcher,
    act: Act,
    run: str,
) -> Ending:
    # The engine takes half a second to import, which a refused migration need not wait for.
    from vferry.controller.journal import run_journaled

    async def body(journal: Journal) -> Ending:
        return await act(Conductor(plan, hosts, journal, watcher, folder))

    return await run_journaled(state.journal, run, body)


@asynccontextmanager
async def _hosts(state: State, plan: Plan, epoch: int) -> AsyncIterator[dict[str, RemoteHost]]:
    session = Session(operation=plan.operation, epoch=epoch)
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(open_host(name, session, state))
            for name in (plan.source, plan.destination)
        }


Probing = Callable[[], Awaitable[tuple[ProbeRecord | None, str | None]]]


@asynccontextmanager
async def _probing(
    state: State, folder: OperationFolder, operation: OperationState, audience: Audience
) -> AsyncIterator[Probing]:
    """Probes the guest meanwhile; yields what ends that with the record, or with why there is none."""
    if not operation.measured:
        yield _unmeasured("it was asked for with --no-probe")
        return
    if operation.probe_address is None:
        yield _unmeasured("the guest's address is not known: name it with --probe ADDRESS")
        return
    settings = read_controller_configuration(state).probe
    namespace = operation.probe_from.removeprefix("netns:") if operation.probe_from else None
    method = "icmp" if settings.method == "auto" else settings.method
    try:
        session = await ProbeSession.start(
            operation.probe_address, folder.probes, rate=settings.rate_hz, method=method, namespace=namespace
        )
    except Problem as problem:
        yield _unmeasured(str(problem))
        return
    async with session:
        news = asyncio.create_task(_pass_on(session, audience))
        await asyncio.sleep(_SETTLE_S)

        async def stop() -> tuple[ProbeRecord | None, str | None]:
            try:
                return _answered(await session.stop(), operation.probe_address)
            except Problem as problem:
                return None, str(problem)
            finally:
                await news

        yield stop


async def _pass_on(session: ProbeSession, audience: Audience) -> None:
    async for live in session.lines():
        audience.probed(live.lost, live.gap_ms)


def _answered(record: ProbeRecord, address: str | None) -> tuple[ProbeRecord | None, str | None]:
    """A record without a single answer says nothing of the migration."""
    if any(rtt >= 0 for rtt in record.rtt):
        return record, None
    return None, f"no probe to {address} was ever answered, before, during or after"


def _unmeasured(why: str) -> Probing:
    async def stop() -> tuple[ProbeRecord | None, str | None]:
        return None, why

    return stop


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
