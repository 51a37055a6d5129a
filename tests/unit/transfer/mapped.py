"""Memory of this process, as if it were a guest's."""

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

from vferry.transfer.multifd import PAGE_BYTES
from vferry.transfer.place import Place
from vferry.transfer.resident import Residents


@contextmanager
def mapped(*pages: bytes, unused: int = 0) -> Iterator[Place]:
    """A place with these pages, and behind them some that were never used."""
    size = (len(pages) + unused) * PAGE_BYTES
    memory = mmap.mmap(-1, size)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    memory.write(b"".join(pages))
    seen = ctypes.c_char.from_buffer(memory)
    start = ctypes.addressof(seen)
    yield Place(os.getpid(), range(start, start + size))
    del seen
    memory.close()


def residents(*pages: bytes, limit: int = 1024) -> Residents:
    """Copies of these pages."""
    found = Residents(limit)
    with mapped(*pages) as place:
        found.gather([place])
    return found
