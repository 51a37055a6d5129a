"""Processes of the lab: found by what they run, so that a crash of `lab up` leaves none unfound."""

import os
import select
import signal
from collections.abc import Iterable
from pathlib import Path

OURS = ("qemu-system-x86_64", "ssh", "busybox")


def belongs(argv: list[str], program: str, markers: Iterable[str]) -> bool:
    """Whether a process is the lab's: one of its programs, with one of its markers in an argument."""
    return program in OURS and any(marker in word for marker in markers for word in argv)


def find(*markers: str) -> list[int]:
    """Ids of the lab's processes that have one of `markers` in an argument."""
    return [pid for pid in (int(f.name) for f in Path("/proc").glob("[0-9]*")) if _matches(pid, markers)]


def _matches(pid: int, markers: tuple[str, ...]) -> bool:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # it ended meanwhile
        return False
    return belongs(argv, Path(argv[0].removesuffix(":")).name, markers)


def end(pids: Iterable[int], grace: float = 3.0) -> None:
    """Ends processes and waits for it: SIGTERM, and SIGKILL for those that are there after `grace` seconds."""
    handles = {pid: handle for pid in set(pids) if (handle := _open(pid)) is not None}
    for number, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        for handle in handles.values():
            _send(handle, number)
        handles = _still_there(handles, wait)
    for handle in handles.values():
        os.close(handle)


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _send(handle: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return


def _still_there(handles: dict[int, int], wait: float) -> dict[int, int]:
    """Waits up to `wait` seconds for each process to end; closes the handles of those that did."""
    left = dict(handles)
    for pid, handle in handles.items():
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        if poller.poll(wait * 1000):
            os.close(left.pop(pid))
    return left
