"""A measurement in a process of its own, for the controller and the command line."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from vferry.model.problem import Exit, Problem
from vferry.probe.record import ProbeRecord

METHODS = ("icmp", "arp")
RATE_MIN, RATE_MAX = 1, 10_000
SECONDS_MAX = 7 * 24 * 3600
START_TIMEOUT = 15.0
# A second for the answers that are due, and then some for a busy machine.
STOP_TIMEOUT = 10.0


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers while measuring, about once a second. `lost` lags by the second an answer may take."""

    sent: int
    lost: int
    late: int
    unsent: int
    gap_ms: float
    longest_gap_ms: float
    rtt_max_ms: float | None = None
    self_stall_max_ms: float | None = None
    error: str | None = None


class ProbeSession:
    """Probes one address until `stop`; made by `start`.

    Use it as an async context manager, or call `stop` or `kill`: else the process goes on until this one ends.
    If this process is killed, the measurement ends too, and `ProbeRecord.load(path)` has what was measured.
    """

    def __init__(self, process: asyncio.subprocess.Process, record: Path) -> None:
        self._process = process
        self._record = record
        self._news = asyncio.Condition()
        self._live: Live | None = None
        self._problem: Problem | None = None
        self._over = False
        self._reader = asyncio.create_task(self._read(), name="probe-reader")

    @classmethod
    async def start(
        cls,
        address: str,
        record: Path,
        *,
        rate: int = 1000,
        method: str = "icmp",
        namespace: str | None = None,
        seconds: float | None = None,
    ) -> Self:
        """Starts measuring `address` and returns once the first probe is about to leave.

        The record goes to the file `record`, which is overwritten. `rate` is probes per second, `seconds` ends
        the measurement by itself. Raises Problem (probe-usage, probe-namespace, probe-not-permitted,
        probe-address, probe-record, probe-failed).
        """
        _check(rate, method, namespace, seconds)
        settings = {
            "address": address,
            "record": str(record),
            "rate": rate,
            "method": method,
            "namespace": namespace,
            "seconds": seconds,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "vferry.probe", json.dumps(settings)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await _ready(process)
        except BaseException as error:
            await _end(process)
            if isinstance(error, TimeoutError):
                raise Problem("probe-failed", "The probe did not start in time", exit=Exit.UNDONE) from error
            raise
        return cls(process, record)

    @property
    def pid(self) -> int:
        """The measuring process."""
        return self._process.pid

    @property
    def live(self) -> Live | None:
        """The newest numbers, or None in the first second."""
        return self._live

    async def lines(self) -> AsyncIterator[Live]:
        """Yields numbers as they come, and ends with the measurement."""
        seen = None
        while not (self._over and self._live is seen):
            async with self._news:
                while not self._over and self._live is seen:
                    await self._news.wait()
                seen, before = self._live, seen
            if seen is not None and seen is not before:
                yield seen

    async def wait(self) -> None:
        """Waits until the measurement has ended by itself."""
        await asyncio.shield(self._reader)

    async def stop(self) -> ProbeRecord:
        """Ends the measurement, which takes up to a second for the answers due, and returns its record.

        May be called again. Raises Problem (probe-record) if the record cannot be written or read.
        """
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
        try:
            return await asyncio.to_thread(ProbeRecord.load, self._record)
        except (OSError, ValueError) as error:
            raise Problem("probe-record", f"The record of the probes cannot be read: {error}") from error

    async def kill(self) -> None:
        """Ends the process at once; its record stays, up to the last second."""
        await _end(self._process)
        await asyncio.wait([self._reader])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    async def _read(self) -> None:
        try:
            while line := await _line(self._process):
                if line.get("event") == "problem":
                    self._problem = _problem(line)
                elif line.get("event") in ("live", "end"):
                    async with self._news:
                        self._live = msgspec.convert(line, Live)
                        self._news.notify_all()
        finally:
            async with self._news:
                self._over = True
                self._news.notify_all()


def _check(rate: int, method: str, namespace: str | None, seconds: float | None) -> None:
    """Refuses what the measuring process could not carry out. Raises Problem."""
    if not RATE_MIN <= rate <= RATE_MAX:
        raise Problem("probe-usage", f"The rate must be {RATE_MIN} to {RATE_MAX} probes per second, not {rate}")
    if method not in METHODS:
        raise Problem("probe-usage", f"There is no method {method!r}", f"Use one of {', '.join(METHODS)}")
    if namespace is not None and (not namespace or "/" in namespace or namespace in (".", "..")):
        raise Problem("probe-usage", f"{namespace!r} is no name of a network namespace", "See `ip netns list`")
    if seconds is not None and not 0 < seconds <= SECONDS_MAX:
        raise Problem("probe-usage", f"The duration must be above 0 and at most {SECONDS_MAX} seconds")


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any] | None:
    """The next line of the process, or None at its end."""
    data = await process.stdout.readline() if process.stdout else b""
    if not data.endswith(b"\n"):
        return None
    line: dict[str, Any] = json.loads(data)
    return line


async def _ready(process: asyncio.subprocess.Process) -> None:
    """Waits until the process measures. Raises Problem."""
    line = await _line(process)
    if line is None:
        raise Problem("probe-failed", "The probe ended before it began", exit=Exit.UNDONE)
    if line.get("event") == "problem":
        raise _problem(line)


def _problem(line: dict[str, Any]) -> Problem:
    return Problem(line["code"], line["message"], line["remedy"], exit=Exit.UNDONE)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
