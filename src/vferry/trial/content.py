"""What is in the guest's memory: programs and libraries of this machine, each once, so that nothing in it repeats."""

import hashlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vferry.model.problem import Problem
from vferry.transfer.codecs import make_codec
from vferry.trial.payload import Work

MIB = 1 << 20
PAGE = 4096
FLOOR_BLOCK = 512 * 1024
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


def layout(memory_mib: int) -> Layout:
    """Five eighths of the memory have content, from an eighth on; the first quarter of the memory's worth is hot."""
    size = memory_mib * MIB
    content_at = min(size // 8, FLAT // 2)
    return Layout(size, content_at, size * 5 // 8, content_at, min(size // 4, FLAT - content_at))


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
        """How many pages are not the same, byte for byte."""
        return sum(
            self.view[at + page : at + page + PAGE] != other.view[at + page : at + page + PAGE]
            for at in range(0, len(self.view), MIB)
            if self.view[at : at + MIB] != other.view[at : at + MIB]
            for page in range(0, MIB, PAGE)
        )


def fill(memory: Memory, places: Layout, folder: Path) -> str:
    """Put the programs below `folder` into a guest's memory and return a digest; `Problem` content-short."""
    digest = hashlib.blake2b(digest_size=6)
    at, end = places.content_at, places.content_at + places.content
    for program in _programs(folder):
        part = program[: end - at]
        memory.view[at : at + len(part)] = part
        digest.update(part)
        at += -(-len(part) // PAGE) * PAGE
        if at >= end:
            return digest.hexdigest()
    raise Problem(
        "content-short",
        f"The programs in {folder} fill {(at - places.content_at) // MIB} MiB of {places.content // MIB}",
        "Give a folder with more of them (--content), or the guest less memory (--memory)",
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


def floor(memory: Memory) -> int:
    """Bytes of a guest's memory when each 512 KiB of it are compressed by themselves, zstd at level 1."""
    codec = make_codec("zstd")
    with memoryview(memory.view) as view:
        return sum(len(codec.encode(view[at : at + FLOOR_BLOCK], 1)) for at in range(0, len(view), FLOOR_BLOCK))


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
