"""A measuring process (`python -m vferry.probe`), seen from the one that started it."""

import asyncio
import contextlib
import json
import sys
from types import TracebackType
from typing import Any, Self

from vferry.model.problem import Exit, Problem

START_TIMEOUT = 15.0
# A second for the answers that are due, and then some for a busy machine.
STOP_TIMEOUT = 10.0


async def launched(settings: dict[str, Any]) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
    """A process that is about to measure, and its first line. Raises Problem (its own, or probe-failed)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "vferry.probe", json.dumps(settings)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(START_TIMEOUT):
            return process, await _ready(process)
    except BaseException as error:
        await _end(process)
        if isinstance(error, TimeoutError):
            raise Problem("probe-failed", "The probe did not start in time", exit=Exit.UNDONE) from error
        raise


class MeasuringProcess:
    """It measures until it is told to end.

    Use it as an async context manager, or end it: else the process goes on until this one ends.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._news = asyncio.Condition()
        self._problem: Problem | None = None
        self._over = False
        self._reader = asyncio.create_task(self._read(), name="probe-reader")

    @property
    def pid(self) -> int:
        """The measuring process."""
        return self._process.pid

    async def wait(self) -> None:
        """Waits until the measurement has ended by itself."""
        await asyncio.shield(self._reader)

    async def kill(self) -> None:
        """Ends the process at once; what it has said or written stays, up to the last second."""
        await _end(self._process)
        await asyncio.wait([self._reader])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    async def _finish(self) -> None:
        """Has the process end by itself, or ends it. Raises its Problem."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await self.wait()
        except TimeoutError:
            await self.kill()
        await self._process.wait()
        if self._problem is not None:
            raise self._problem

    async def _read(self) -> None:
        try:
            while line := await _line(self._process):
                if line.get("event") == "problem":
                    self._problem = _problem(line)
                elif line.get("event") in ("live", "end"):
                    async with self._news:
                        self._heard(line)
                        self._news.notify_all()
        finally:
            async with self._news:
                self._over = True
                self._news.notify_all()

    def _heard(self, line: dict[str, Any]) -> None:
        """Takes the figures of a second, or the last ones."""
        raise NotImplementedError


def check_namespace(name: str | None) -> None:
    """Raises Problem (probe-usage) for what cannot be a network namespace's name."""
    if name is not None and (not name or "/" in name or name in (".", "..")):
        raise Problem("probe-usage", f"{name!r} is no name of a network namespace", "See `ip netns list`")


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any] | None:
    """The next line of the process, or None at its end."""
    data = await process.stdout.readline() if process.stdout else b""
    if not data.endswith(b"\n"):
        return None
    line: dict[str, Any] = json.loads(data)
    return line


async def _ready(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Waits until the process measures. Raises Problem."""
    line = await _line(process)
    if line is None:
        raise Problem("probe-failed", "The probe ended before it began", exit=Exit.UNDONE)
    if line.get("event") == "problem":
        raise _problem(line)
    return line


def _problem(line: dict[str, Any]) -> Problem:
    return Problem(line["code"], line["message"], line["remedy"], exit=Exit.UNDONE)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
