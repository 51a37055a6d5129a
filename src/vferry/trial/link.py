"""Two network namespaces without names and a link between them, as fast as is asked for."""

import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from vferry.model.problem import Exit, Problem
from vferry.trial.process import Process

SOURCE, DESTINATION = range(2)
ADDRESSES = ("192.0.2.1", "192.0.2.2")
DEVICE = "trial"
# What the shaper may send at once, by the link's speed; segments of 64 KiB come whole.
LEAST_BURST = 256 * 1024
BURST_S = 0.001
QUEUE_MS = 50


class Link:
    """The link. Each namespace belongs to a process that sleeps, and goes with it."""

    def __init__(self, mbit: int) -> None:
        """`mbit` in Mbit/s; 0 is as fast as this machine can."""
        self._mbit = mbit
        self._stack = ExitStack()
        self._holders: list[Process] = []

    def __enter__(self) -> Self:
        try:
            for _ in ADDRESSES:
                self._holders.append(self._stack.enter_context(Process(["unshare", "--net", "sleep", "infinity"])))
            for holder in self._holders:
                _await_namespace(holder)
            self._connect()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def inside(self, side: int, argv: Sequence[str]) -> list[str]:
        """The command line that runs a command at one side."""
        return ["nsenter", f"--net=/proc/{self._holders[side].pid}/ns/net", *argv]

    def carried(self) -> int:
        """Bytes that went through the link so far, headers included, both ways."""
        lines = Path(f"/proc/{self._holders[SOURCE].pid}/net/dev").read_text().splitlines()
        fields = next(line.partition(":")[2].split() for line in lines if line.strip().startswith(f"{DEVICE}:"))
        return int(fields[0]) + int(fields[8])

    def _connect(self) -> None:
        here, there = (str(holder.pid) for holder in self._holders)
        _run(
            ["ip", "link", "add", "name", DEVICE, "netns", here, "type", "veth", "peer", "name", DEVICE, "netns", there]
        )
        for side, address in enumerate(ADDRESSES):
            for line in (f"address add {address}/24 dev {DEVICE}", f"link set {DEVICE} up", "link set lo up"):
                _run(self.inside(side, ["ip", *line.split()]))
            if self._mbit:
                _run(self.inside(side, ["tc", *shape(self._mbit).split()]))


def shape(mbit: int) -> str:
    """The words for `tc` that make a link of so many Mbit/s."""
    burst = max(LEAST_BURST, int(mbit * 125_000 * BURST_S))
    return f"qdisc add dev {DEVICE} root tbf rate {mbit}mbit burst {burst} latency {QUEUE_MS}ms"


def _await_namespace(holder: Process) -> None:
    own = os.readlink("/proc/self/ns/net")  # noqa: PTH115 - it leads nowhere
    deadline = time.monotonic() + 10
    while holder.running() and time.monotonic() < deadline:
        if os.readlink(f"/proc/{holder.pid}/ns/net") != own:  # noqa: PTH115
            return
        time.sleep(0.01)
    raise Problem("bench-no-namespace", "Cannot make a network namespace", "Run it as root", exit=Exit.UNDONE)


def _run(argv: Sequence[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Problem("bench-no-link", f"{' '.join(argv)}: {done.stderr.strip()}", "Run it as root", exit=Exit.UNDONE)
