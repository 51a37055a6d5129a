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
"""For how long a source's agent may be silent: libvirt's migration goes on without it, and it is restarted."""


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
            await self._start()
            last = await self._follow()
        except Problem as problem:
            await self._stop()
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

    async def _stop(self) -> None:
        """Makes sure that no migration goes on behind our back, before anything is decided."""
        try:
            await self._patiently(AbortMigration(guest=self._plan.guest))
            while (await self._patiently(ReadMigration(guest=self._plan.guest))).state == "active":
                await asyncio.sleep(_POLL_S)
        except Problem:
            return  # the source says nothing, or has nothing: where the guest runs is asked next

    async def _patiently(self, operation: Operation[R]) -> R:
        """Asks the source until it answers, for as long as its agent may be down."""
        until = time.monotonic() + _SILENCE_S
        while True:
            try:
                return await self._source.call(operation)
            except Problem as problem:
                if problem.code != "host-unreachable" or time.monotonic() > until:
                    raise
            await asyncio.sleep(1)

    async def _settle(self, problem: Problem | None, last: Migration | None = None) -> dict[str, Any]:
        """Acts on where the guest is, whatever the migration said of itself."""
        verdict = await self._where()
        if verdict is Verdict.DESTINATION_PAUSED:
            await self._destination.call(Resume(guest=self._plan.guest))
            verdict = Verdict.DESTINATION
        if verdict is Verdict.DESTINATION:
            return self._figures(last or await self._last_word())
        if verdict is Verdict.SOURCE_PAUSED:
            await self._back_to_source()
            verdict = Verdict.SOURCE
        if verdict is Verdict.SOURCE:
            raise problem or Problem("migration-failed", "The guest did not leave the source", exit=Exit.UNDONE)
        raise uncertain(self._plan, verdict)

    async def _back_to_source(self) -> None:
        guest = self._plan.guest
        try:
            await self._destination.call(Destroy(guest=guest))
        except Problem as problem:
            if problem.code != "guest-unknown":
                raise
        await self._source.call(Resume(guest=guest))

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
