"""The watched TCP connection, for the controller and the command line; it is measured in a process of its own."""

import asyncio
import contextlib
from typing import Any, Self

import msgspec

from vferry.model.problem import Problem
from vferry.probe.process import MeasuringProcess, check_namespace, launched

PORT_MIN, PORT_MAX = 1, 65535
# Somewhat longer than the process waits for a silent connection.
PATIENCE_S = 35.0


class TcpRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a connection. Times are CLOCK_MONOTONIC of this machine, times and lengths in ns.

    `sent` and `echoed` are records, `wrong` bytes. `ended` is why the connection ended by itself, None if it did not.
    """

    port: int
    opened_at: int
    sent: int = 0
    echoed: int = 0
    wrong: int = 0
    stall_ns: int = 0
    stall_at: int = 0
    """When the longest stall began."""
    self_stall_ns: int = 0
    retransmissions: int | None = None
    ended: str | None = None
    ended_at: int | None = None


class TcpSession(MeasuringProcess):
    """Watches one connection until `stop`, or until it ends; made by `start`. It ends with this process."""

    def __init__(self, process: asyncio.subprocess.Process, record: TcpRecord) -> None:
        self._record = record
        super().__init__(process)

    @classmethod
    async def start(cls, address: str, port: int, *, namespace: str | None = None) -> Self:
        """Opens a connection from this machine, or a namespace of it, and returns once there is one.

        Raises Problem (probe-usage, probe-namespace, probe-tcp, probe-failed), after 15 s at the latest.
        """
        check_namespace(namespace)
        if not PORT_MIN <= port <= PORT_MAX:
            raise Problem("probe-usage", f"A port is {PORT_MIN} to {PORT_MAX}, not {port}")
        process, ready = await launched({"address": address, "port": port, "namespace": namespace})
        return cls(process, TcpRecord(port=port, opened_at=ready["opened_at"]))

    async def stop(self, *, patient: bool = False) -> TcpRecord:
        """Ends the measurement and returns what was measured; that takes up to a second for the echoes due.

        If `patient`, a connection that is silent is given as long again as it has been silent, 30 s at most, to show
        that it lives. May be called again. Raises Problem.
        """
        if patient and self._process.stdin and not self._process.stdin.is_closing():
            self._process.stdin.write(b"stop\n")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await self.wait()
        await self._finish()
        return self._record

    def _heard(self, line: dict[str, Any]) -> None:
        known = {"port": self._record.port, "opened_at": self._record.opened_at}
        self._record = msgspec.convert(line | known, TcpRecord)
