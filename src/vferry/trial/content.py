"""What is in the guest's memory: programs and libraries of this machine, each once, so that nothing in it repeats."""

import hashlib
import mmap
import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from vferry.model.problem import Problem
from vferry.transfer.codecs import make_codec
from vferry.trial.payload import Work

MIB = 1 << 20
PAGE = 4096
BLOCK = 512 * 1024
"""What the floor compresses by itself, in bytes."""
TURNS, DISPLACED = 16, 1000
AVAILABLE = re.compile(r"^MemAvailable: *(\d+) kB$", re.MULTILINE)
# Guest addresses are the file's offsets below this, where a q35 machine may leave a hole.
FLAT = 2048 * MIB


class Layout(NamedTuple):
    """Where what is in the guest's memory, in bytes."""

    size: int
    content_at: int
    content: int
    hot_at: int
    hot: int

    def work(self, rate: int) -> Work:
        return Work(self.hot_at, self.hot // PAGE, rate)


def layout(memory_mib: int, used_mib: int = 0) -> Layout:
    """From an eighth of the memory on there is content, in five eighths of it or as much as is said.

    The first quarter of the memory's worth of that is hot. `Problem` too-much-used.
    """
    size = memory_mib * MIB
    content_at = min(size // 8, FLAT // 2)
    content = used_mib * MIB or size * 5 // 8
    if content_at + content > size:
        most = (size - content_at) // MIB
        raise Problem("too-much-used", f"{used_mib} MiB of {memory_mib} cannot be used", f"Use {most} at most (--used)")
    return Layout(size, content_at, content, content_at, min(size // 4, content, FLAT - content_at))


class Memory:
    """Memory that QEMU processes may have for a guest's: a file without a name, gone with the last who has it."""

    def __init__(self, name: str, size: int) -> None:
        self.fd = os.memfd_create(name)
        os.ftruncate(self.fd, size)
        self.view = mmap.mmap(self.fd, size)

    def close(self) -> None:
        self.view.close()
        os.close(self.fd)

    def word(self, at: int) -> int:
        return int.from_bytes(self.view[at : at + 4], "little")

    def differing(self, other: "Memory") -> int:
        """How many pages are not the same, byte for byte.

        They are read from the files: what was never used would take memory if it were looked at where it is mapped.
        """
        size = len(self.view)
        return sum(map(_differing, self.blocks(0, size), other.blocks(0, size)))

    def blocks(self, at: int, end: int) -> Iterator[bytes]:
        """What is in a part of it, `BLOCK` bytes at a time."""
        for begin in range(at, end, BLOCK):
            yield os.pread(self.fd, min(BLOCK, end - begin), begin)


def _differing(one: bytes, other: bytes) -> int:
    if one == other:
        return 0
    return sum(one[at : at + PAGE] != other[at : at + PAGE] for at in range(0, len(one), PAGE))


def fill(memory: Memory, places: Layout, folder: Path, *, again: bool = False) -> str:
    """Put the programs below `folder` into a guest's memory and return a digest; `Problem` content-short.

    With `again` they are taken `TURNS` times at most, from another byte on each time, so that no page is like another.
    """
    digest = hashlib.blake2b(digest_size=6)
    at, end = places.content_at, places.content_at + places.content
    programs = (program[turn * DISPLACED :] for turn in range(TURNS if again else 1) for program in _programs(folder))
    for program in filter(None, programs):
        part = program[: end - at]
        memory.view[at : at + len(part)] = part
        digest.update(part)
        at += -(-len(part) // PAGE) * PAGE
        if at >= end:
            return digest.hexdigest()
    raise Problem(
        "content-short",
        f"The programs in {folder} fill {(at - places.content_at) // MIB} MiB of {places.content // MIB}",
        "Give a folder with more of them (--content), or the guest less memory (--memory), or take them --again",
    )


def copy(source: Memory, destination: Memory, places: Layout) -> None:
    """Give another guest the same content."""
    area = slice(places.content_at, places.content_at + places.content)
    destination.view[area] = source.view[area]


def warm(size: int) -> None:
    """Have so much memory free that was just in use, but half of what is free at most.

    A virtual machine may have given free memory back to its host; to use it again takes ten times the CPU (measured:
    2.4 s a GiB instead of 0.13), which whoever comes first would pay.
    """
    size = min(size, os.sysconf("SC_AVPHYS_PAGES") * PAGE // 2)
    mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def check_free(needed: int) -> None:
    """`Problem` not-enough-memory, rather than that the kernel ends what runs here."""
    free = AVAILABLE.search(Path("/proc/meminfo").read_text())
    if free is not None and int(free[1]) * 1024 < needed:
        raise Problem(
            "not-enough-memory",
            f"This takes {needed // MIB} MiB of memory, and {int(free[1]) // 1024} MiB are free",
            "Take a smaller guest, or less of it (--memory, --used)",
        )


def floor(blocks: Iterable[bytes]) -> int:
    """Bytes of what is in memory when each block is compressed by itself, zstd at level 1."""
    codec = make_codec("zstd")
    return sum(len(codec.encode(memoryview(block), 1)) for block in blocks)


def floor_of_cold(memory: Memory, places: Layout) -> int:
    """`floor` of all that the guest does not change."""
    after = places.hot_at + places.hot
    return floor(chain(memory.blocks(0, places.hot_at), memory.blocks(after, places.size)))


def hot(memory: Memory, places: Layout) -> Iterator[bytes]:
    """What is in the part of the memory that the guest changes, as it is when it is read."""
    return memory.blocks(places.hot_at, places.hot_at + places.hot)


def _programs(folder: Path) -> Iterator[bytes]:
    """Programs and libraries (ELF) below a folder in the order of their paths, each content once."""
    seen: set[bytes] = set()
    for directory, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            data = _program(Path(directory, name))
            digest = hashlib.blake2b(data).digest()
            if data and digest not in seen:
                seen.add(digest)
                yield data


def _program(path: Path) -> bytes:
    """A file's content if it is a program; nothing otherwise."""
    try:
        if path.is_symlink() or not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read() if file.read(4) == b"\x7fELF" and not file.seek(0) else b""
    except OSError:
        return b""
