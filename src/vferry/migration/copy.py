"""Copying the memory: starts libvirt's peer-to-peer migration, follows it, and finds out where the guest is."""

import asyncio
import time
from typing import Any

from vferry.host.api import (
    AbortMigration,
    Host,
    LimitMigration,
    Migration,
    ReadMigration,
    StartMigration,
    StretchPause,
)
from vferry.migration.connections import Connections
from vferry.migration.record import Aborted, Observer, Requests
from vferry.migration.settling import Settling, patiently
from vferry.migration.whereabouts import Verdict
from vferry.model.problem import Exit, Problem
from vferry.plan.convergence import Course, follow, taken
from vferry.plan.plan import Plan
from vferry.report import words

_POLL_S = 0.2


class Copying:
    """One copy, from its start to the verdict on where the guest runs."""

    def __init__(
        self,
        plan: Plan,
        source: Host,
        destination: Host,
        connections: Connections,
        observer: Observer,
        requests: Requests,
    ) -> None:
        self._plan = plan
        self._source = source
        self._destination = destination
        self._connections = connections
        self._observer = observer
        self._requests = requests
        self._settling = Settling(plan, source, destination)
        self._course = Course(allowed_ms=plan.transfer.downtime_ms)
        self._bandwidth: int | None = None
        """The limit that holds; None is not known."""

    async def run(self) -> dict[str, Any]:
        """Returns what the report needs of the copy once the guest runs at the destination.

        Raises `Problem`: ``aborted`` or ``migration-failed`` when the guest runs at the source, and
        ``guest-uncertain`` when nobody can tell, or when it runs on both or on neither.
        """
        if await self._settling.where() is Verdict.DESTINATION:
            return self._figures(await self._last_word())
        try:
            if self._requests.abort_asked():
                raise Aborted
            await self._start()
            async with self._connections.followed():
                last = await self._follow()
        except Problem as problem:
            return await self._settle(problem)
        if last.state == "completed":
            return await self._settle(None, last)
        return await self._settle(Problem("migration-failed", last.error or "libvirt gave no reason", exit=Exit.UNDONE))

    async def _start(self) -> None:
        transfer = self._plan.transfer
        asked = self._requests.bandwidth_asked()
        bandwidth = transfer.bandwidth if asked is None else asked
        started = await self._source.call(
            StartMigration(
                guest=self._plan.guest,
                persistent_xml=self._plan.persistent_xml,
                attached=self._plan.attached,
                parallel=transfer.parallel,
                bandwidth=bandwidth,
                downtime_ms=transfer.downtime_ms,
                throttle=transfer.throttle,
                compression=transfer.compression,
                cache=transfer.cache << 20,
                vfs=self._plan.migrated_vfs,
            )
        )
        if started.changed:
            self._bandwidth = bandwidth

    async def _follow(self) -> Migration:
        """The last state of the migration. An abort and the deadline end it first, and then it is followed on."""
        cause: Problem | None = None
        cancelled = False
        while True:
            now = await patiently(self._source, ReadMigration(guest=self._plan.guest))
            self._observer.progress(now)
            if now.paused_age_s is not None:
                self._connections.paused()
            if now.state != "active":
                if cause and now.state != "completed":
                    raise cause
                return now
            if cause is None:
                await self._converge(now)
            # Again where libvirt was not at it yet, or QEMU was slow; but not in the pause, when QEMU may be silent.
            wanted = not cancelled and (cause is None or now.paused_age_s is None)
            if wanted and (due := self._cause(now)):
                cause = due
                cancelled = (await patiently(self._source, AbortMigration(guest=self._plan.guest))).changed
            await self._limit(now)
            await asyncio.sleep(_POLL_S)

    async def _limit(self, now: Migration) -> None:
        """Sets the bandwidth that is asked for; one that could not be set is tried again at the next look."""
        asked = self._requests.bandwidth_asked()
        if asked is None or asked == self._bandwidth:
            return
        # Until the copy begins libvirt still sets what it was started with; in the pause QEMU answers nobody.
        if now.rounds < 1 or now.paused_age_s is not None:
            return
        try:
            limited = await self._source.call(LimitMigration(guest=self._plan.guest, bandwidth=asked))
        except Problem:
            return
        if limited.changed:
            self._bandwidth = asked

    async def _converge(self, now: Migration) -> None:
        """Does what is allowed where the copy stalls; what could not be done is tried again at the next look."""
        course = follow(self._course, now, time.monotonic(), self._plan.transfer.when_stalled)
        done = [*taken(self._course, course, now)]
        for stall in done:
            if stall.pause_ms is not None:
                try:
                    await self._source.call(StretchPause(guest=self._plan.guest, downtime_ms=stall.pause_ms))
                except Problem:
                    return
        self._course = course
        for stall in done:
            self._observer.stalled(stall)

    def _cause(self, now: Migration) -> Problem | None:
        if self._requests.abort_asked():
            return Aborted()
        if now.paused_age_s is not None:
            # The memory is copied; what devices send then takes its time.
            return None
        if self._course.given_up:
            return Problem(
                "stalled",
                f"The copy stalled: in pass {now.rounds} it had {words.size(now.remaining_bytes)} left",
                "Allow more before it is aborted (--when-stalled), or migrate when the guest writes less",
                exit=Exit.UNDONE,
            )
        limit = self._plan.transfer.deadline_s
        if (now.started_age_s or 0.0) > limit:
            return Problem(
                "deadline",
                f"The memory was not copied within {limit:.0f} s",
                "Give more time with --deadline, or migrate when the guest writes less",
                exit=Exit.UNDONE,
            )
        return None

    async def _settle(self, problem: Problem | None, last: Migration | None = None) -> dict[str, Any]:
        """Acts on where the guest is, whatever the migration said of itself."""
        verdict = await self._settling.settle(completed=last is not None)
        if verdict is Verdict.DESTINATION:
            return self._figures(last or await self._last_word())
        raise problem or Problem("migration-failed", "The guest did not leave the source", exit=Exit.UNDONE)

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
            "sent_bytes": last.sent_bytes,
            "rounds": last.rounds or None,
            "device_bytes": last.device_bytes,
            "pause_limit_ms": max(self._course.allowed_ms, last.downtime_ms),
            "throttle": max(self._course.throttle, last.throttle) if self._plan.transfer.throttle else None,
        }
