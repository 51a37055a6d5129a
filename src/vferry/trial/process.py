"""Processes that end with the one that started them, whatever ends it, and the CPU time that they take."""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Process:
    """A running command. The kernel kills it when this process ends; so start it from the main thread."""

    def __init__(
        self,
        argv: Sequence[str],
        fds: Sequence[int] = (),
        out: int = subprocess.DEVNULL,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        """`fds` are inherited."""
        command = ["setpriv", "--pdeathsig", "KILL", *argv]
        self._process = subprocess.Popen(command, stdin=stdin, stdout=out, stderr=subprocess.PIPE, pass_fds=fds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> IO[bytes]:
        assert self._process.stdout  # noqa: S101 - asked for with `out`
        return self._process.stdout

    def tell(self, text: str) -> None:
        """Write to its standard input, which was asked for with `stdin`. Raises BrokenPipeError."""
        assert self._process.stdin  # noqa: S101
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def running(self) -> bool:
        return self._process.poll() is None

    def end(self, by: signal.Signals = signal.SIGTERM) -> tuple[bytes, bytes]:
        """Ask it to end, and return what it has printed since, on standard output and error."""
        self._process.send_signal(by)
        return self._process.communicate(timeout=20)

    def errors(self) -> str:
        """Kill it, and return what it has printed on standard error."""
        self._process.kill()
        return (self._process.communicate()[1] or b"").decode(errors="replace").strip()

    def peak_bytes(self) -> int:
        """The most memory that it has had; 0 once it has ended."""
        try:
            lines = Path("/proc", str(self.pid), "status").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)

    def cpu_s(self, thread: int | None = None) -> float:
        """Seconds of CPU time so far, of all of it or of one thread; 0 once it has ended."""
        where = Path("/proc", str(self.pid), "task" if thread else "", str(thread or ""), "stat")
        try:
            fields = where.read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) * TICK_S
