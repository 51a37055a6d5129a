"""Copying the memory: starts libvirt's peer-to-peer migration, follows it, and finds out where the guest is."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from vferry.host.api import (
    AbortMigration,
    Destroy,
    Host,
    Migration,
    Operation,
    R,
    ReadMigration,
    Resume,
    StartMigration,
)
from vferry.migration.record import Aborted, Observer
from vferry.migration.whereabouts import Verdict, locate
from vferry.model.problem import Exit, Problem
from vferry.plan.plan import Plan

_POLL_S = 0.2
_SILENCE_S = 60.0
"""For how long an agent may be silent: libvirt's migration goes on without it, and it is restarted."""
_ATTEMPTS = 3
"""How often a guest that is paused is told to go on, before the operator is asked."""


class Copying:
    """One copy, from its start to the verdict on where the guest runs."""

    def __init__(
        self, plan: Plan, source: Host, destination: Host, observer: Observer, aborted: Callable[[], bool]
    ) -> None:
        self._plan = plan
        self._source = source
        self._destination = destination
        self._observer = observer
        self._aborted = aborted

    async def run(self) -> dict[str, Any]:
        """Returns what the report needs of the copy once the guest runs at the destination.

        Raises `Problem`: ``aborted`` or ``migration-failed`` when the guest runs at the source, and
        ``guest-uncertain`` when nobody can tell, or when it runs on both or on neither.
        """
        if await self._where() is Verdict.DESTINATION:
            return self._figures(await self._last_word())
        try:
            if self._aborted():
                raise Aborted
            await self._start()
            last = await self._follow()
        except Problem as problem:
            return await self._settle(problem)
        if last.state == "completed":
            return await self._settle(None, last)
        return await self._settle(Problem("migration-failed", last.error or "libvirt gave no reason", exit=Exit.UNDONE))

    async def _start(self) -> None:
        transfer = self._plan.transfer
        await self._source.call(
            StartMigration(
                guest=self._plan.guest,
                persistent_xml=self._plan.persistent_xml,
                parallel=transfer.parallel,
                bandwidth=transfer.bandwidth,
                downtime_ms=transfer.downtime_ms,
            )
        )

    async def _follow(self) -> Migration:
        """The last state of the migration. An abort and the deadline end it first, and then it is followed on."""
        deadline = time.monotonic() + self._plan.transfer.deadline_s
        cause: Problem | None = None
        while True:
            now = await self._patiently(ReadMigration(guest=self._plan.guest))
            self._observer.progress(now)
            if now.state != "active":
                if cause and now.state != "completed":
                    raise cause
                return now
            if cause is None:
                cause = self._cause(deadline)
                if cause:
                    await self._patiently(AbortMigration(guest=self._plan.guest))
            await asyncio.sleep(_POLL_S)

    def _cause(self, deadline: float) -> Problem | None:
        if self._aborted():
            return Aborted()
        if time.monotonic() > deadline:
            limit = self._plan.transfer.deadline_s
            return Problem(
                "deadline",
                f"The memory was not copied within {limit:.0f} s",
                "Give more time with --deadline, or migrate when the guest writes less",
                exit=Exit.UNDONE,
            )
        return None

    async def _stop(self) -> bool:
        """Makes sure that no migration goes on behind our back; False where the source cannot say so."""
        try:
            await self._abort()
            until = time.monotonic() + _SILENCE_S
            while (await self._patiently(ReadMigration(guest=self._plan.guest))).state == "active":
                if time.monotonic() > until:
                    return False
                await asyncio.sleep(_POLL_S)
        except Problem:
            return False
        return True

    async def _abort(self) -> None:
        try:
            await self._patiently(AbortMigration(guest=self._plan.guest))
        except Problem as problem:
            if problem.code != "migration-ending":
                raise

    async def _patiently(self, operation: Operation[R]) -> R:
        """Asks the source until it answers, for as long as its agent may be down."""
        return await _patiently(self._source, operation)

    async def _settle(self, problem: Problem | None, last: Migration | None = None) -> dict[str, Any]:
        """Acts on where the guest is, whatever the migration said of itself."""
        verdict = Verdict.UNKNOWN
        for _ in range(_ATTEMPTS):
            # First no migration may go on, then it is asked where the guest is: else it might move in between.
            over = last is not None or await self._stop()
            verdict = await self._where()
            if verdict is Verdict.DESTINATION:
                return self._figures(last or await self._last_word())
            if verdict is Verdict.SOURCE and over:
                raise problem or Problem("migration-failed", "The guest did not leave the source", exit=Exit.UNDONE)
            if verdict is Verdict.DESTINATION_PAUSED or (verdict is Verdict.SOURCE_PAUSED and over):
                await self._let_go_on(verdict)
            elif verdict not in (Verdict.SOURCE, Verdict.SOURCE_PAUSED):
                break
        raise uncertain(self._plan, verdict)

    async def _let_go_on(self, verdict: Verdict) -> None:
        """Resumes the guest; whether that was done is not told by the answer, which may be lost, but asked again."""
        guest = self._plan.guest
        try:
            if verdict is Verdict.SOURCE_PAUSED:
                await self._clear_destination()
                await self._patiently(Resume(guest=guest))
            else:
                await _patiently(self._destination, Resume(guest=guest))
        except Problem:
            return

    async def _clear_destination(self) -> None:
        try:
            await _patiently(self._destination, Destroy(guest=self._plan.guest))
        except Problem as problem:
            if problem.code != "guest-unknown":
                raise

    async def _where(self) -> Verdict:
        """Asks until one host runs the guest, for a while: libvirt may still be finishing."""
        verdict = Verdict.UNKNOWN
        for _ in range(15):
            verdict = await locate(self._source, self._destination, self._plan.guest)
            if verdict in (Verdict.SOURCE, Verdict.DESTINATION, Verdict.BOTH):
                return verdict
            await asyncio.sleep(1)
        return verdict

    async def _last_word(self) -> Migration:
        try:
            return await self._source.call(ReadMigration(guest=self._plan.guest))
        except Problem:
            return Migration()

    def _figures(self, last: Migration) -> dict[str, Any]:
        now = time.monotonic()
        paused = None if last.paused_age_s is None else now - last.paused_age_s
        return {
            "paused_at": paused,
            "pause_ms": last.pause_ms,
            "guest_bytes": last.total_bytes or None,
            "rounds": last.rounds or None,
        }


async def _patiently(host: Host, operation: Operation[R]) -> R:
    until = time.monotonic() + _SILENCE_S
    while True:
        try:
            return await host.call(operation)
        except Problem as problem:
            if problem.code != "host-unreachable" or time.monotonic() > until:
                raise
        await asyncio.sleep(1)


def uncertain(plan: Plan, verdict: Verdict) -> Problem:
    """What the operator must look at, with the one command for each answer."""
    said = {
        Verdict.BOTH: f"{plan.guest} runs on {plan.source} and on {plan.destination}",
        Verdict.NOWHERE: f"{plan.guest} runs on neither {plan.source} nor {plan.destination}",
    }.get(verdict, f"{plan.source} and {plan.destination} cannot tell together where {plan.guest} runs")
    return Problem(
        "guest-uncertain",
        f"{said}; nothing was resumed on a guess",
        f"Look at both hosts (virsh domstate {plan.guest}), then say which one keeps it: "
        f"vferry operation recover {plan.operation} --guest-is-at {plan.source}, or "
        f"vferry operation recover {plan.operation} --guest-is-at {plan.destination}",
        exit=Exit.OPERATOR,
    )
