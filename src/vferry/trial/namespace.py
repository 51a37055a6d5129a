"""A network namespace without a name, which goes with the process that has it."""

import os
import subprocess
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from vferry.model.problem import Exit, Problem
from vferry.trial.process import Process

APPEARS_S = 10.0


class Namespace:
    """It belongs to a process that sleeps."""

    def __init__(self) -> None:
        self._holder = Process(["unshare", "--net", "sleep", "infinity"])

    def __enter__(self) -> Self:
        """Problem ``bench-no-namespace``."""
        own = os.readlink("/proc/self/ns/net")  # noqa: PTH115 - it leads nowhere
        deadline = time.monotonic() + APPEARS_S
        while self._holder.running() and time.monotonic() < deadline:
            if os.readlink(f"/proc/{self.pid}/ns/net") != own:  # noqa: PTH115
                return self
            time.sleep(0.01)
        self._holder.__exit__(None, None, None)
        raise Problem("bench-no-namespace", "Cannot make a network namespace", "Run it as root", exit=Exit.UNDONE)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._holder.__exit__(kind, error, trace)

    @property
    def pid(self) -> int:
        """The process that has it."""
        return self._holder.pid

    def inside(self, argv: Sequence[str] = ()) -> list[str]:
        """The command line that runs a command in it."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *argv]

    def run(self, argv: Sequence[str]) -> None:
        """Runs a command in it. Problem ``bench-no-link``."""
        run(self.inside(argv))

    def ip(self, *commands: str) -> None:
        """Has ip(8) do commands in it. Problem ``bench-no-link``."""
        for command in commands:
            self.run(["ip", *command.split()])


def run(argv: Sequence[str]) -> None:
    """Runs a command. Problem ``bench-no-link``."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Problem("bench-no-link", f"{' '.join(argv)}: {done.stderr.strip()}", "Run it as root", exit=Exit.UNDONE)
