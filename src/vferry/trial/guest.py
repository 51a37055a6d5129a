"""One QEMU process of a trial: the source with a guest that runs, or the destination that waits for it."""

import socket
import time
from collections.abc import Sequence
from pathlib import Path

from vferry.model.problem import Exit, Problem
from vferry.trial.content import Memory
from vferry.trial.modes import Mode
from vferry.trial.monitor import Monitor
from vferry.trial.payload import COUNTER_AT, READY, Work, kernel
from vferry.trial.process import Process
from vferry.trial.started import Started

# QEMU's own limit of 128 MiB/s is to be none.
UNLIMITED = 100 << 30
DOWNTIME_MS = 300
BOOT_S = 60.0


def accelerator() -> list[str]:
    """KVM where the processor can; /dev/kvm alone may open and run nothing."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    if Path("/dev/kvm").exists() and flags & {"svm", "vmx"}:
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg"]


class Guest(Started):
    """A guest in `memory`, which runs from the start, or, with `incoming`, waits and does not run after."""

    def __init__(self, qemu: Sequence[str], memory: Memory, work: Work, *, incoming: bool = False) -> None:
        """`qemu` is the start of its command line."""
        super().__init__()
        self._qemu = qemu
        self._work = work
        self._incoming = incoming
        self.memory = memory
        self.process: Process
        self.monitor: Monitor

    def _start(self) -> None:
        image = Memory("kernel", 1 << 16)
        self._stack.callback(image.close)
        program = kernel(self._work)
        image.view[: len(program)] = program
        here, there = socket.socketpair()
        self._stack.callback(here.close)
        with there:
            fds = (there.fileno(), self.memory.fd, image.fd)
            self.process = self._stack.enter_context(Process([*self._qemu, *self._arguments(*fds)], fds))
        try:
            self.monitor = Monitor(here)
        except Problem as problem:
            errors = self.process.errors()
            raise Problem("qemu-ended", f"QEMU does not start: {errors}", exit=Exit.UNDONE) from problem

    def _arguments(self, monitor: int, memory: int, image: int) -> list[str]:
        size = len(self.memory.view)
        backend = f"memory-backend-file,id=ram,size={size},share=on,mem-path=/proc/self/fd/{memory}"
        argv = ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35,memory-backend=ram"]
        argv += [*accelerator(), "-m", f"{size >> 20}", "-object", backend, "-kernel", f"/proc/self/fd/{image}"]
        argv += ["-chardev", f"socket,id=qmp,fd={monitor}", "-qmp", "chardev:qmp"]
        return [*argv, "-S", "-incoming", "defer"] if self._incoming else argv

    def prepare(self, mode: Mode, **more: object) -> None:
        """Set what a mode needs; raises `RefusedError` where this QEMU does not offer it."""
        capabilities = [{"capability": name, "state": True} for name in ("events", *mode.capabilities)]
        self.monitor.ask("migrate-set-capabilities", capabilities=capabilities)
        limits = {"max-bandwidth": UNLIMITED, "downtime-limit": DOWNTIME_MS}
        self.monitor.ask("migrate-set-parameters", **{**limits, **mode.parameters, **more})

    def await_ready(self) -> None:
        """Return once the guest runs its program; `Problem` guest-not-up."""
        deadline = time.monotonic() + BOOT_S
        while self.memory.word(COUNTER_AT + 4) != READY:
            if time.monotonic() > deadline or not self.process.running():
                raise Problem("guest-not-up", "The guest does not start", exit=Exit.UNDONE)
            time.sleep(0.05)

    def changed(self) -> int:
        """How many pages the guest has changed so far."""
        return self.memory.word(COUNTER_AT)

    def vcpu(self) -> int:
        """The thread that runs the guest's processor."""
        return int(self.monitor.ask("query-cpus-fast")[0]["thread-id"])
