"""Measuring a guest's disk and agent while NICs are plugged and unplugged, beside a migration that does not notice."""

import asyncio
import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from msgspec import Struct
from msgspec.structs import replace

from vferry.controller.drive import Audience
from vferry.host.api import Host, Latency, MeasureGuest, Migration
from vferry.migration.record import StepRecord
from vferry.model.problem import Problem
from vferry.model.report import Phase, Stall
from vferry.report.bench_latency import figures

BASELINE = "baseline"
STEPS = ("plug-standby", "unplug-vf", "plug-vf", "unplug-standby")

_SLICE_S = 1.0
_BASELINE_SLICES = 3
_ANSWER_S = 20.0


class Measured(Struct, frozen=True, kw_only=True):
    """What was measured beside one step, or before all of them."""

    host: str
    agent_ms: tuple[float, ...] = ()
    disk_ms: tuple[float, ...] = ()
    no_answer: int = 0
    """Slices of a second that came to nothing."""

    def plus(self, more: Latency | None) -> "Measured":
        """With one more slice; None is one without an answer."""
        if more is None:
            return replace(self, no_answer=self.no_answer + 1)
        return replace(self, agent_ms=self.agent_ms + more.agent_ms, disk_ms=self.disk_ms + more.disk_ms)


class LatencyWatch:
    """An observer that asks a step's host for slice after slice while the step runs, and passes all on to another.

    The last slice goes on for up to a second after its step: what the guest does with a new device belongs to it.
    Leaving the context waits for the slices that are under way; `measured` is complete then.
    """

    def __init__(self, guest: str, hosts: Mapping[str, Host], audience: Audience) -> None:
        self._guest = guest
        self._hosts = hosts
        self._audience = audience
        self._open: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self.measured: dict[str, Measured] = {}
        """By step, in the order in which they began; `BASELINE` is the first."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.clear()
        if error is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=error is not None)

    async def baseline(self, host: str) -> None:
        """Measures the guest where it is, before anything is done to it."""
        self.measured[BASELINE] = Measured(host=host)
        for _ in range(_BASELINE_SLICES):
            await self._slice(BASELINE, host)

    def phase(self, phase: Phase) -> None:
        self._audience.phase(phase)

    def started(self, phase: Phase, name: str, host: str) -> None:
        self._audience.started(phase, name, host)
        if name in STEPS:
            self._open.add(name)
            self.measured.setdefault(name, Measured(host=host))
            self._tasks.append(asyncio.create_task(self._beside(name, host)))

    def ended(self, record: StepRecord) -> None:
        self._open.discard(record.name)
        self._audience.ended(record)

    def progress(self, migration: Migration) -> None:
        self._audience.progress(migration)

    def stalled(self, stall: Stall) -> None:
        self._audience.stalled(stall)

    def probed(self, lost: int, gap_ms: float) -> None:
        self._audience.probed(lost, gap_ms)

    async def _beside(self, step: str, host: str) -> None:
        while True:
            answered = await self._slice(step, host)
            if step not in self._open:
                return
            if not answered:
                await asyncio.sleep(_SLICE_S)

    async def _slice(self, step: str, host: str) -> bool:
        answer: Latency | None = None
        # A migration does not depend on its being measured.
        with contextlib.suppress(Problem):
            question = MeasureGuest(guest=self._guest, seconds=_SLICE_S)
            answer = await self._hosts[host].call(question, timeout_s=_ANSWER_S)
        self.measured[step] = self.measured[step].plus(answer)
        return answer is not None


def kept(measured: Mapping[str, Measured]) -> dict[str, dict[str, Any]]:
    """As the results file keeps it: ``{step: {host, agent_ms: {median, max, n}, disk_ms: {...}, no_answer}}``."""
    return {
        name: {
            "host": one.host,
            "agent_ms": figures(one.agent_ms),
            "disk_ms": figures(one.disk_ms),
            "no_answer": one.no_answer,
        }
        for name, one in measured.items()
    }
