"""What a running guest does with its memory: how fast it writes, and what codecs make of what is there.

QEMU measures the first by taking a hash of some pages twice. For the second some of the memory is read from QEMU's
process, which neither QEMU nor the guest notices, and pages that were never used are not touched. It does not leave
this host: a process like a gateway tries its codecs on it, and what they made of it is all that is told.
"""

import random
import re
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from vferry.host.domain_xml import read_domain
from vferry.host.gateways_process import COMMAND, environment
from vferry.host.hypervisor import Hypervisor
from vferry.host.hypervisor_domains import job_runs, qemu_pid
from vferry.model.memory import PRESENT, MemoryUse, Sample
from vferry.model.problem import Problem

T = TypeVar("T")

MIB = 1 << 20
PAGE_BYTES = 4096
PIECES = 128
PIECE_BYTES = 64 << 10
PIECE_PAGES = PIECE_BYTES // PAGE_BYTES
TRIAL_S = 30.0
PATIENCE_S = 5.0
POLL_S = 0.1
STATISTICS_S = 60.0
"""How old a balloon's statistics may be."""
MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw.. ")
# Numbers of libvirt's ABI: virDomainStatsTypes, virDomainDirtyRateStatus.
DIRTY_RATE, MEASURED = 1 << 9, 2


class Seen(NamedTuple):
    """Pages that were read, and how many others the guest has never used."""

    memory: bytes
    unused: int


def measure_memory(hypervisor: Hypervisor, guest: str, seconds: int, root: Path = Path("/")) -> MemoryUse:
    """Looks at a running guest, for some seconds. What cannot be known is said in the notes.

    Problems: ``guest-unknown``, ``guest-off``.
    """
    domain = hypervisor.running(guest)
    notes: list[str] = []
    measuring = _noted(hypervisor, notes, "the dirty rate", lambda: _start(hypervisor, domain, seconds))
    until = time.monotonic() + seconds + PATIENCE_S
    sample = _noted(hypervisor, notes, "the memory", lambda: _try_codecs(look(domain, guest, root)))
    rate = None
    if measuring:
        rate = _noted(hypervisor, notes, "the dirty rate", lambda: _dirty_rate(hypervisor, domain, until))
    free = _noted(hypervisor, notes, "what it has free", lambda: free_bytes(domain))
    return MemoryUse(dirty_rate=rate, sample=sample, free=free, notes=tuple(notes))


def look(domain: Any, guest: str, root: Path) -> Seen:
    """Pieces of a guest's memory, from places spread over it. Raises OSError, and `Problem` ``memory-not-found``."""
    pid, where = _place(domain, guest, root)
    process = root / f"proc/{pid}"
    pieces, unused = [], 0
    with (process / "mem").open("rb", buffering=0) as memory, (process / "pagemap").open("rb", buffering=0) as pagemap:
        for place in spread(where, random.Random()):  # noqa: S311 - so that no page is always, or never, seen
            pagemap.seek(place // PAGE_BYTES * 8)
            entries = struct.unpack(f"={PIECE_PAGES}Q", pagemap.read(PIECE_PAGES * 8))
            for number, entry in enumerate(entries):
                if not entry & PRESENT:
                    unused += 1
                    continue
                memory.seek(place + number * PAGE_BYTES)
                pieces.append(memory.read(PAGE_BYTES))
    return Seen(b"".join(pieces), unused)


def resident_places(hypervisor: Hypervisor, root: Path) -> tuple[str, ...]:
    """Where the memory of guests is that run here, each as ``PID:START-END``, as far as it can be found."""
    places = []
    for domain in hypervisor.domains():
        with suppress(OSError, ValueError, Problem):
            pid, where = _place(domain, domain.name(), root)
            places.append(f"{pid}:{where.start:x}-{where.stop:x}")
    return tuple(places)


def _place(domain: Any, guest: str, root: Path) -> tuple[int, range]:
    """The process that runs a guest, and where the guest's memory is in it. Raises as `look` does, and ValueError."""
    pid = qemu_pid(root, guest)
    return pid, ram((root / f"proc/{pid}/maps").read_text(), read_domain(domain.XMLDesc(0)).memory)


def ram(maps: str, memory: int) -> range:
    """Where a process of QEMU's has its guest's memory: the largest of its mappings, and at least half as large."""
    found = [range(int(match[1], 16), int(match[2], 16)) for match in MAPPING.finditer(maps)]
    largest = max(found, key=len, default=range(0))
    if len(largest) < max(memory // 2, PIECE_BYTES):
        raise Problem("memory-not-found", "no mapping of QEMU's is as large as the guest's memory")
    return largest[: max(memory, PIECE_BYTES)]


def spread(where: range, chance: random.Random) -> list[int]:
    """Places of pieces: one at random in each of as many equal parts, rising."""
    pieces = len(where) // PIECE_BYTES
    count = min(PIECES, pieces)
    picked = [chance.randrange(n * pieces // count, (n + 1) * pieces // count) for n in range(count)]
    return [where.start + index * PIECE_BYTES for index in picked]


def free_bytes(domain: Any) -> int | None:
    """What a guest says it has free, where its balloon is asked for statistics anyway, and it has answered lately."""
    told = domain.memoryStats()
    lately = time.time() - told.get("last_update", 0) < STATISTICS_S
    return int(told["unused"]) * 1024 if lately and "unused" in told else None


def _noted(hypervisor: Hypervisor, notes: list[str], what: str, ask: Callable[[], T]) -> T | None:
    try:
        with hypervisor.calling(f"Measuring {what}"):
            return ask()
    # AttributeError: a binding that is older than the call. ValueError: an answer that is not what it should be.
    except (Problem, OSError, ValueError, AttributeError, struct.error, subprocess.SubprocessError) as problem:
        notes.append(f"{what} is not known: {problem}")
        return None


def _start(hypervisor: Hypervisor, domain: Any, seconds: int) -> bool:
    if job_runs(hypervisor, domain):
        raise Problem("guest-busy", "the guest is at another job")
    domain.startDirtyRateCalc(seconds, 0)
    return True


def _dirty_rate(hypervisor: Hypervisor, domain: Any, until: float) -> float:
    while True:
        for _domain, told in hypervisor.connection().domainListGetStats([domain], DIRTY_RATE, 0):
            if told.get("dirtyrate.calc_status") == MEASURED:
                return float(told["dirtyrate.megabytes_per_second"] * MIB)
        if time.monotonic() > until:
            raise Problem("dirty-rate-late", "QEMU did not end its measurement in time")
        time.sleep(POLL_S)


def _try_codecs(seen: Seen) -> Sample:
    """What a process like a gateway says of the pages; those that were never used are zero."""
    if not seen.memory:
        return Sample(pages=seen.unused, zero_pages=seen.unused)
    ended = subprocess.run(
        [*COMMAND, "sample"], input=seen.memory, capture_output=True, timeout=TRIAL_S, cwd="/", env=environment()
    )
    if ended.returncode:
        words = ended.stderr.decode(errors="replace").strip().splitlines()
        raise Problem("codecs-not-tried", words[-1][:200] if words else "no codec could be tried")
    found = msgspec.json.decode(ended.stdout, type=Sample)
    return replace(found, pages=found.pages + seen.unused, zero_pages=found.zero_pages + seen.unused)
