"""Carrying steps out on hosts, and taking them back: each of them once, as its journal knows it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from msgspec import Struct

from vferry.host.api import (
    Announce,
    Done,
    GuestRun,
    Host,
    Operation,
    PlugRelayed,
    PlugStandby,
    PlugVf,
    RunInGuest,
    TeachBridge,
    Unplug,
)
from vferry.migration.record import Aborted, NoRequests, Observer, Outcome, Requests, StepRecord, now_text
from vferry.model.problem import Exit, Problem
from vferry.model.report import Phase
from vferry.model.text import MOST, clean
from vferry.network.step import Step

_ANSWER_S = 200.0
"""Longer than any script in a guest is given."""
PATIENCE_S = 60.0
"""For how long an undo or a step after the resume keeps asking a host that does not answer."""

IN_GUEST = (PlugStandby, PlugRelayed, PlugVf, Unplug, RunInGuest, TeachBridge, Announce)
"""What is asked of a guest, or is true only while it runs."""

Acted = tuple[str, dict[str, Any]]
"""What a step says of itself: its detail, and what later steps or the report need of it."""


class Journal(Protocol):
    """Remembers how each step ended, so that a controller that takes over does not do it again."""

    async def once(self, key: str, work: Callable[[], Awaitable[StepRecord]]) -> StepRecord:
        """Runs the work and records its result; answers the recorded one when it ran to its end before."""
        ...


class Ending(Struct, frozen=True, kw_only=True):
    """How it ended, with every step's record in order: a migration, or the move of a NIC on its host."""

    exit: Exit
    reason: str
    records: tuple[StepRecord, ...]
    at_destination: bool
    degraded: str | None = None
    notes: tuple[str, ...] = ()
    """What the operator must do."""


class Stepper:
    """Carries steps out on hosts, the first controller's or the next one's after that has died."""

    def __init__(
        self,
        hosts: Mapping[str, Host],
        journal: Journal,
        observer: Observer,
        requests: Requests | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._hosts = hosts
        self._journal = journal
        self._observer = observer
        self._requests = requests or NoRequests()
        self._patience_s = patience_s
        self._records: list[StepRecord] = []
        self._phase: Phase | None = None
        self._silent: set[str] = set()
        """Hosts that were waited for in vain: they are asked once more each time, and not waited for again."""

    async def _forward(
        self, steps: tuple[Step, ...], *, abortable: bool = True
    ) -> tuple[tuple[Step, ...], StepRecord | None]:
        """Carries steps out until one fails; answers those that may have changed something, and what failed."""
        for number, step in enumerate(steps, start=1):
            record = await self._once("apply", step, partial(self._apply, step, abortable=abortable))
            if not record.ok:
                return steps[:number], record
        return steps, None

    async def _all(self, steps: Iterable[Step]) -> list[StepRecord]:
        """Carries all steps out, whatever becomes of each, but for those that require one that failed."""
        records: list[StepRecord] = []
        for step in steps:
            if any(record.name == step.requires and not record.ok for record in records):
                continue
            records.append(await self._once("apply", step, partial(self._apply, step, abortable=False)))
        return records

    async def _undo(self, steps: tuple[Step, ...]) -> list[StepRecord]:
        """Takes steps back in reverse; one that fails does not keep the rest from being taken back.

        Between two NICs it does: a guest that does not get the one back keeps the other, with the path to it.
        """
        records: list[StepRecord] = []
        stuck: dict[Phase, str] = {}
        for step in reversed(steps):
            if not self._goes_back(step):
                continue
            record = await self._once("undo", step, partial(self._take_back, step, stuck.get(step.phase)))
            if not record.ok and step.phase in (Phase.TO_STANDBY, Phase.TO_VF):
                stuck.setdefault(step.phase, step.name)
            records.append(record)
        return records

    async def _once(self, kind: str, step: Step, work: Callable[[], Awaitable[StepRecord]]) -> StepRecord:
        phase = Phase.RESTORE if kind == "undo" else step.phase
        if phase is not self._phase:
            self._phase = phase
            self._observer.phase(phase)
        record = await self._journal.once(f"{kind}:{len(self._records)}:{step.name}@{step.host}", work)
        self._records.append(record)
        self._observer.ended(record)
        return record

    async def _act(self, step: Step, *, abortable: bool) -> Acted:
        """Carries one step out. Problems: those of what is asked for."""
        if abortable and self._requests.abort_asked():
            raise Aborted
        return await self._call_all(step.host, step.apply, patient=not abortable), {}

    async def _act_back(self, step: Step) -> Acted:
        """Takes one step back. Problems: those of what is asked for."""
        return await self._call_all(step.host, step.undo, patient=True), {}

    def _goes_back(self, step: Step) -> bool:
        """Whether there is anything to be taken back of a step."""
        return bool(step.undo)

    async def _apply(self, step: Step, *, abortable: bool) -> StepRecord:
        self._observer.started(step.phase, step.name, step.host)
        act = partial(self._act, step, abortable=abortable)
        return await _recorded(step.phase, step, act, Outcome.DONE, Outcome.FAILED)

    async def _take_back(self, step: Step, stuck: str | None) -> StepRecord:
        self._observer.started(Phase.RESTORE, f"undo {step.name}", step.host)

        async def act() -> Acted:
            if stuck is not None:
                raise Problem("left-as-it-is", f"left as it is, since {stuck} could not be taken back")
            return await self._act_back(step)

        return await _recorded(Phase.RESTORE, step, act, Outcome.UNDONE, Outcome.UNDO_FAILED)

    async def _call_all(self, host: str, operations: Iterable[Operation[Any]], *, patient: bool) -> str:
        """Asks for operations in order; their details, joined."""
        details = []
        for operation in operations:
            answer = await self._ask(host, operation, patient=patient)
            if isinstance(operation, RunInGuest) and answer.code != 0:
                raise _script_failed(operation.guest, answer)
            if isinstance(answer, Done) and answer.detail:
                details.append(answer.detail)
        return "; ".join(details)

    async def _ask(self, host: str, operation: Operation[Any], *, patient: bool) -> Any:
        until = time.monotonic() + (self._patience_s if patient and host not in self._silent else 0)
        while True:
            try:
                answer = await self._hosts[host].call(operation, timeout_s=_ANSWER_S)
            except Problem as problem:
                if problem.code != "host-unreachable":
                    raise
                if time.monotonic() >= until:
                    if patient:
                        self._silent.add(host)
                    raise
            else:
                self._silent.discard(host)
                return answer
            await asyncio.sleep(min(1.0, self._patience_s))


async def _recorded(
    phase: Phase,
    step: Step,
    act: Callable[[], Awaitable[Acted]],
    good: Outcome,
    bad: Outcome,
) -> StepRecord:
    """Runs a step and makes its record, whether it ends well or in a `Problem`."""
    started, start = now_text(), time.monotonic()
    detail, remedy, code = "", "", None
    data: dict[str, Any] = {}
    outcome = good
    try:
        detail, data = await act()
    except Problem as problem:
        detail, remedy, code = problem.message, problem.remedy, problem.code
        outcome = {"aborted": Outcome.ABORTED, "guest-uncertain": Outcome.UNCERTAIN}.get(problem.code, bad)
    return StepRecord(
        phase=phase,
        name=step.name,
        host=step.host,
        outcome=outcome,
        start=start,
        end=time.monotonic(),
        started=started,
        detail=detail,
        code=code,
        remedy=remedy,
        data=data,
    )


def _script_failed(guest: str, run: GuestRun) -> Problem:
    said = (run.stderr or run.stdout).strip().splitlines()
    return Problem(
        "guest-script-failed",
        f"A script in {guest} ended with code {run.code}" + (f": {clean(said[-1], MOST)}" if said else ""),
        "Look at the guest's network (ip address, ip route) and at its qemu-guest-agent",
        exit=Exit.UNDONE,
        guest=guest,
        status=run.code,
    )


def left_out(operation: Operation[Any]) -> GuestRun | Done:
    """In place of the answer to what is not asked of a guest that is off: it has what it is defined with."""
    return GuestRun(code=0) if isinstance(operation, RunInGuest) else Done(changed=False)


def advice(record: StepRecord) -> str:
    """What is said of a step that failed."""
    remedy = f" {record.remedy}." if record.remedy else ""
    return f"{record.name} on {record.host} failed: {record.detail}.{remedy}"
