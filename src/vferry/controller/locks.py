"""Locks of this machine by which one process at a time drives an operation; they end with it."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vferry.model.problem import Problem

_GLANCE_S = 0.5
"""Whoever looks whether an operation is driven holds its lock for an instant."""


@contextmanager
def held(path: Path, taken: Problem) -> Iterator[None]:
    """Holds the lock of a file, which is made if need be; raises `taken` where another process holds it."""
    with path.open("ab") as file:
        until = time.monotonic() + _GLANCE_S
        while not _locked(file, fcntl.LOCK_EX):
            if time.monotonic() > until:
                raise taken
            time.sleep(0.01)
        yield


def is_held(path: Path) -> bool:
    """Whether some process holds it."""
    with path.open("ab") as file:
        return not _locked(file, fcntl.LOCK_SH)


def _locked(file: IO[bytes], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
