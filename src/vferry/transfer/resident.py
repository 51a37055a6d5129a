"""Pages that need not be sent, because a guest that runs at the destination has the same: they are resident there.

Before there is a connection, the receiving gateway copies pages out of the memory of such guests and takes a hash of
each; it tells them to the sender when a session begins. Of a page whose hash is among them only the number is sent.

The hash is 128 bits of SHA-256 over a key, drawn by the receiver, and the page: whoever has a guest there cannot
make a page that is taken for another guest's. What was copied does not change any more, whatever that guest does.
"""

import hashlib
import mmap
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vferry.model.memory import PRESENT
from vferry.transfer.differences import WORDS, Numbers, Pages
from vferry.transfer.multifd import PAGE_BYTES
from vferry.transfer.place import Place
from vferry.transfer.wire import DIGEST_BYTES, KEY_BYTES, Hashes

CHUNK_PAGES = 256
GATHER_S = 10.0
"""How long the receiver may take to copy pages: what it has by then is what there is."""
TRIED, WORTH = 16_384, 1 / 64
"""After so many pages of which less than this share is resident, no more are looked up: hashing has its price."""
NOWHERE = -1
BLOCK_BYTES = 64
"""Of SHA-256: a key of this length is hashed once for all pages."""


class Residents:
    """The receiver's copies of resident pages: as many different ones as there is room for."""

    def __init__(self, limit: int) -> None:
        """Reserve `limit` × 4 KiB, which is taken from the system as it is used."""
        self._pages = reserve(limit)
        self._numbers: dict[bytes, int] = {}
        self._key = os.urandom(KEY_BYTES)
        self._hash = _Hash(self._key)

    @property
    def hashes(self) -> Hashes:
        return Hashes(self._key, b"".join(self._numbers))

    @property
    def count(self) -> int:
        return len(self._numbers)

    def gather(self, places: Iterable[Place]) -> None:
        """Copy what is in these places, until there is no more room or time. Raises OSError."""
        until = time.monotonic() + GATHER_S
        rest = deque(map(_chunks, places))
        while rest and len(self._numbers) < len(self._pages) and time.monotonic() < until:
            # In turn, so that there is something of each.
            chunk = next(rest[0], None)
            if chunk is None:
                rest.popleft()
            else:
                self._take(chunk)
                rest.rotate(-1)

    def at(self, numbers: Numbers) -> Pages:
        """The pages with these numbers, which are below `count`."""
        return self._pages[numbers]

    def _take(self, chunk: Pages) -> None:
        pages = chunk[chunk.any(axis=1)]
        first, room = len(self._numbers), len(self._pages) - len(self._numbers)
        new = {digest: row for row, digest in enumerate(self._hash(pages)) if digest not in self._numbers}
        rows = list(new.values())[:room]
        self._numbers |= {digest: first + nth for nth, digest in zip(range(room), new, strict=False)}
        self._pages[first : first + len(rows)] = pages[rows]


class Lookup:
    """The sender's view of them. For one thread at a time."""

    def __init__(self, hashes: Hashes) -> None:
        digests = (hashes.digests[at : at + DIGEST_BYTES] for at in range(0, len(hashes.digests), DIGEST_BYTES))
        self._hash = _Hash(hashes.key)
        self._numbers = {digest: number for number, digest in enumerate(digests)}
        self._tried = self._found = 0

    def find(self, pages: Pages) -> Numbers | None:
        """The number of each page, `NOWHERE` of one that is not there; None where that is not looked for any more."""
        if not self._numbers:
            return None
        numbers = np.array([self._numbers.get(digest, NOWHERE) for digest in self._hash(pages)], np.int64)
        self._tried += len(numbers)
        self._found += int(np.count_nonzero(numbers != NOWHERE))
        if self._tried >= TRIED and self._found < self._tried * WORTH:
            self._numbers = {}
        return numbers


def reserve(pages: int) -> Pages:
    """Memory for so many pages, in huge pages: a fault for each small one costs more than copying to it."""
    memory = mmap.mmap(-1, pages * PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint64).reshape(pages, WORDS)


class _Hash:
    """Hashes of pages. All are equally long, so that a key before the page is enough."""

    def __init__(self, key: bytes) -> None:
        self._begun = hashlib.sha256(key.ljust(BLOCK_BYTES, b"\0"))

    def __call__(self, pages: Pages) -> Iterator[bytes]:
        data = np.ascontiguousarray(pages).reshape(-1).view(np.uint8).data
        for at in range(0, len(data), PAGE_BYTES):
            page = self._begun.copy()
            page.update(data[at : at + PAGE_BYTES])
            yield page.digest()[:DIGEST_BYTES]


def _chunks(place: Place) -> Iterator[Pages]:
    """Pages of a process's memory that it has used. No others are read: a guest would then have these, too."""
    process, buffer = Path(f"/proc/{place.pid}"), memoryview(bytearray(CHUNK_PAGES * PAGE_BYTES))
    with (process / "mem").open("rb", buffering=0) as memory, (process / "pagemap").open("rb", buffering=0) as pagemap:
        for start in place.addresses[:: CHUNK_PAGES * PAGE_BYTES]:
            count = min(CHUNK_PAGES, (place.addresses.stop - start) // PAGE_BYTES)
            pagemap.seek(start // PAGE_BYTES * 8)
            entries = np.frombuffer(pagemap.read(count * 8), np.uint64)
            size = 0
            for first, last in _runs(entries & np.uint64(PRESENT) != 0):
                memory.seek(start + first * PAGE_BYTES)
                size += memory.readinto(buffer[size:][: (last - first) * PAGE_BYTES])
            yield np.frombuffer(buffer[: size // PAGE_BYTES * PAGE_BYTES], np.uint64).reshape(-1, WORDS)


def _runs(flags: npt.NDArray[np.bool_]) -> list[list[int]]:
    """Where flags are set: from, and up to.

    >>> _runs(np.array([True, True, False, True]))
    [[0, 2], [3, 4]]
    """
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    return edges.reshape(-1, 2).tolist()
