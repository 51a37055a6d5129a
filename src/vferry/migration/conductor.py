"""Carrying a plan out: its steps in order, its undo in reverse, and the point of no return between them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from msgspec import Struct, to_builtins

from vferry.host.api import (
    Concede,
    Done,
    GatewayStatistics,
    GuestRun,
    Host,
    Operation,
    StartReceiving,
    StartSending,
    StopGateway,
)
from vferry.migration.connections import Connections
from vferry.migration.copy import Copying
from vferry.migration.record import Aborted, NoRequests, Observer, Outcome, Requests, StepRecord, now_text
from vferry.model.problem import Exit, Problem
from vferry.model.report import Phase
from vferry.model.text import MOST, clean
from vferry.network import modes
from vferry.network.step import CloseGateways, Copy, OpenGateways, Step, TakeConnections
from vferry.plan.plan import Plan

_ANSWER_S = 200.0
"""Longer than any script in a guest is given."""
_PATIENCE_S = 60.0
"""For how long an undo or a step after the resume keeps asking a host that does not answer."""


class Journal(Protocol):
    """Remembers how each step ended, so that a controller that takes over does not do it again."""

    async def once(self, key: str, work: Callable[[], Awaitable[StepRecord]]) -> StepRecord:
        """Runs the work and records its result; answers the recorded one when it ran to its end before."""
        ...


class Ending(Struct, frozen=True, kw_only=True):
    """How a migration ended, with every step's record in order."""

    exit: Exit
    reason: str
    records: tuple[StepRecord, ...]
    at_destination: bool
    degraded: str | None = None
    notes: tuple[str, ...] = ()
    """What the operator must do."""


class Conductor:
    """Carries one plan out, from the first step or from where another controller left it."""

    def __init__(
        self,
        plan: Plan,
        hosts: Mapping[str, Host],
        journal: Journal,
        observer: Observer,
        requests: Requests | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._plan = plan
        self._hosts = hosts
        self._journal = journal
        self._observer = observer
        self._requests = requests or NoRequests()
        self._patience_s = patience_s
        self._records: list[StepRecord] = []
        self._phase: Phase | None = None
        self._silent: set[str] = set()
        """Hosts that were waited for in vain: they are asked once more each time, and not waited for again."""

    async def run(self) -> Ending:
        """Carries the plan out. Never raises a `Problem`: what went wrong is in the ending."""
        stages = modes.stages(self._plan)
        touched, failed = await self._forward(stages.before)
        if failed is not None:
            return await self._fail(touched, failed)
        return await self._finish()

    async def finish(self) -> Ending:
        """Everything after the resume, for a guest that is found at the destination."""
        return await self._finish()

    async def take_back(self, why: Problem) -> Ending:
        """Undoes everything before the copy, for a guest that is found at the source."""
        before = modes.stages(self._plan).before
        return self._undone(await self._undo(before), why.exit, str(why))

    async def _finish(self) -> Ending:
        stages = modes.stages(self._plan)
        landed = await self._all(stages.landing)
        failed, unwound = await self._arrive(stages.arrival)
        restored = await self._all(stages.after)
        troubles = [record for record in (*landed, *unwound, *restored) if not record.ok]
        notes = tuple(_advice(record) for record in troubles)
        degraded = "leftovers" if notes else None
        if failed is not None:
            dark = any(move.dark for move in self._plan.moves)
            degraded, words = ("no-vf", "without its VF") if dark else ("standby", "on its standby NIC")
            repair = f"When the cause is gone: vferry operation recover {self._plan.operation}"
            notes = (f"{self._plan.guest} is {words}: {failed.detail}", repair, *notes)
        return Ending(
            exit=Exit.OPERATOR if notes else Exit.DONE,
            reason=self._plan.reason,
            records=tuple(self._records),
            at_destination=True,
            degraded=degraded,
            notes=notes,
        )

    async def _arrive(self, arrival: tuple[Step, ...]) -> tuple[StepRecord | None, list[StepRecord]]:
        """The way back to a VF; answers the record of what failed, if anything, and how that way was undone."""
        touched, failed = await self._forward(arrival, abortable=False)
        return failed, [] if failed is None else await self._undo(touched)

    async def _fail(self, touched: tuple[Step, ...], failed: StepRecord) -> Ending:
        if failed.outcome is Outcome.UNCERTAIN:
            return Ending(
                exit=Exit.OPERATOR,
                reason=failed.detail,
                records=tuple(self._records),
                at_destination=False,
                notes=(failed.remedy,),
            )
        exit_code = Exit.ABORTED if failed.outcome is Outcome.ABORTED else Exit.UNDONE
        return self._undone(await self._undo(touched), exit_code, failed.detail)

    def _undone(self, undone: list[StepRecord], exit_code: Exit, reason: str) -> Ending:
        notes = [_advice(record) for record in undone if not record.ok]
        if notes:
            notes.append(f"Then: vferry operation recover {self._plan.operation}")
        return Ending(
            exit=Exit.OPERATOR if notes else exit_code,
            reason=reason,
            records=tuple(self._records),
            at_destination=False,
            notes=tuple(notes),
        )

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
            if not step.undo and not isinstance(step, OpenGateways):
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

    async def _apply(self, step: Step, *, abortable: bool) -> StepRecord:
        self._observer.started(step.phase, step.name, step.host)

        async def act() -> tuple[str, dict[str, Any]]:
            # A copy may have been begun by a controller that died, and be over: it looks where the guest is first.
            if abortable and not isinstance(step, Copy) and self._requests.abort_asked():
                raise Aborted
            match step:
                case Copy():
                    data = await self._copying().run()
                    return "", data
                case TakeConnections():
                    return await self._connections().last()
                case OpenGateways():
                    return await self._open_gateways(step), {}
                case CloseGateways():
                    return "", await self._close_gateways(step)
                case _:
                    return await self._call_all(step.host, step.apply, patient=not abortable), {}

        return await _recorded(step.phase, step, act, Outcome.DONE, Outcome.FAILED)

    async def _take_back(self, step: Step, stuck: str | None) -> StepRecord:
        self._observer.started(Phase.RESTORE, f"undo {step.name}", step.host)

        async def act() -> tuple[str, dict[str, Any]]:
            if stuck is not None:
                raise Problem("left-as-it-is", f"left as it is, since {stuck} could not be taken back")
            if isinstance(step, OpenGateways):
                await self._close_gateways(step)
                return "", {}
            return await self._call_all(step.host, step.undo, patient=True), {}

        return await _recorded(Phase.RESTORE, step, act, Outcome.UNDONE, Outcome.UNDO_FAILED)

    def _copying(self) -> Copying:
        source, destination = self._hosts[self._plan.source], self._hosts[self._plan.destination]
        return Copying(self._plan, source, destination, self._connections(), self._observer, self._requests)

    def _connections(self) -> Connections:
        return Connections(self._plan, self._hosts[self._plan.source], self._hosts[self._plan.destination])

    async def _open_gateways(self, step: OpenGateways) -> str:
        transfer = self._plan.transfer
        receive = StartReceiving(peer=step.host, delta_memory=transfer.delta_memory)
        receiving = await self._hosts[step.destination].call(receive, timeout_s=120)
        sending = StartSending(
            peer=step.destination,
            address=receiving.address,
            port=receiving.port,
            token=receiving.token,
            codec=transfer.codec,
            streams=transfer.streams,
            delta_memory=transfer.delta_memory,
        )
        await self._hosts[step.host].call(sending, timeout_s=120)
        return f"{receiving.address}:{receiving.port}"

    async def _close_gateways(self, step: OpenGateways | CloseGateways) -> dict[str, Any]:
        """Both sides' figures together; the bytes are those that the sender put on the wire."""
        if isinstance(step, CloseGateways):
            # A guest that is still held at the source would go on there when its gateway ends.
            await self._ask(step.host, Concede(guest=self._plan.guest), patient=True)
        sent = await self._ask(step.host, StopGateway(), patient=True)
        received = await self._ask(step.destination, StopGateway(), patient=True)
        return {
            "wire_bytes": sent.wire_bytes or None,
            "compressed": to_builtins(sent.compressed or received.compressed),
            "cpu_s": _sum(sent, received, "cpu_s"),
            "cpu_peak": _sum(sent, received, "cpu_peak"),
        }

    async def _call_all(self, host: str, operations: Iterable[Operation[Any]], *, patient: bool) -> str:
        """Asks for operations in order; their details, joined."""
        details = []
        for operation in operations:
            answer = await self._ask(host, operation, patient=patient)
            if isinstance(answer, GuestRun) and answer.code != 0:
                raise _script_failed(self._plan.guest, answer)
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
    act: Callable[[], Awaitable[tuple[str, dict[str, Any]]]],
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


def _advice(record: StepRecord) -> str:
    remedy = f" {record.remedy}." if record.remedy else ""
    return f"{record.name} on {record.host} failed: {record.detail}.{remedy}"


def _sum(sent: GatewayStatistics, received: GatewayStatistics, name: str) -> float | None:
    total = getattr(sent, name) + getattr(received, name)
    return total or None
