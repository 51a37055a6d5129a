"""A measurement in a process of its own, for the controller and the command line."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import msgspec

from vferry.model.problem import Problem
from vferry.probe.process import MeasuringProcess, check_namespace, launched
from vferry.probe.record import ProbeRecord

METHODS = ("icmp", "arp")
RATE_MIN, RATE_MAX = 1, 10_000
SECONDS_MAX = 7 * 24 * 3600


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


class ProbeSession(MeasuringProcess):
    """Probes one address until `stop`; made by `start`.

    If this process is killed, the measurement ends too, and `ProbeRecord.load(path)` has what was measured.
    """

    def __init__(self, process: asyncio.subprocess.Process, record: Path) -> None:
        self._record = record
        self._live: Live | None = None
        super().__init__(process)

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
        adapt: bool = False,
    ) -> Self:
        """Starts measuring `address` and returns once the first probe is about to leave.

        The record goes to the file `record`, which is overwritten. `rate` is probes per second; with `adapt` fewer are
        sent where the address cannot answer so many. `seconds` ends the measurement by itself. Raises Problem
        (probe-usage, probe-namespace, probe-not-permitted, probe-address, probe-record, probe-failed).
        """
        _check(rate, method, namespace, seconds)
        settings = {
            "address": address,
            "record": str(record),
            "rate": rate,
            "method": method,
            "namespace": namespace,
            "seconds": seconds,
            "adapt": adapt,
        }
        process, _ = await launched(settings)
        return cls(process, record)

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

    async def stop(self) -> ProbeRecord:
        """Ends the measurement, which takes up to a second for the answers due, and returns its record.

        May be called again. Raises Problem (probe-record) if the record cannot be written or read.
        """
        await self._finish()
        try:
            return await asyncio.to_thread(ProbeRecord.load, self._record)
        except (OSError, ValueError) as error:
            raise Problem("probe-record", f"The record of the probes cannot be read: {error}") from error

    def _heard(self, line: dict[str, Any]) -> None:
        self._live = msgspec.convert(line, Live)


def _check(rate: int, method: str, namespace: str | None, seconds: float | None) -> None:
    """Refuses what the measuring process could not carry out. Raises Problem."""
    if not RATE_MIN <= rate <= RATE_MAX:
        raise Problem("probe-usage", f"The rate must be {RATE_MIN} to {RATE_MAX} probes per second, not {rate}")
    if method not in METHODS:
        raise Problem("probe-usage", f"There is no method {method!r}", f"Use one of {', '.join(METHODS)}")
    check_namespace(namespace)
    if seconds is not None and not 0 < seconds <= SECONDS_MAX:
        raise Problem("probe-usage", f"The duration must be above 0 and at most {SECONDS_MAX} seconds")
