"""What a running guest does with its memory: how fast it writes, and what codecs make of what is there.

QEMU measures the first by taking a hash of some pages twice. For the second libvirt shows some of the memory, which
does not leave this host: a process like a gateway tries its codecs on it, and what they made of it is all that is told.
"""

import random
import subprocess
import time
from typing import Any

import msgspec

from vferry.host.domain_xml import read_domain
from vferry.host.gateways_process import COMMAND, environment
from vferry.host.hypervisor import Hypervisor
from vferry.model.memory import MemoryUse, Sample
from vferry.model.problem import Problem

MIB, GIB = 1 << 20, 1 << 30
PIECES = 96
PIECE_BYTES = 64 << 10
"""Less than what libvirt passes on at a time (1 MiB before 8.0)."""
TRIAL_S = 30.0
PATIENCE_S = 5.0
POLL_S = 0.1
# Numbers of libvirt's ABI: virDomainMemoryFlags, virDomainStatsTypes, virDomainDirtyRateStatus.
PHYSICAL, DIRTY_RATE, MEASURED = 2, 1 << 9, 2


def measure_memory(hypervisor: Hypervisor, guest: str, seconds: int) -> MemoryUse:
    """Looks at a running guest. What cannot be known is said in the notes.

    Problems: ``guest-unknown``, ``guest-off``.
    """
    domain = hypervisor.running(guest)
    notes: list[str] = []
    began = time.monotonic()
    measuring = _noted(hypervisor, notes, "the dirty rate", lambda: domain.startDirtyRateCalc(seconds, 0) or True)
    seen = _noted(hypervisor, notes, "the memory", lambda: look(domain))
    sample = _try_codecs(seen, notes) if seen else None
    rate = None
    if measuring:
        until = began + seconds + PATIENCE_S
        rate = _noted(hypervisor, notes, "the dirty rate", lambda: _dirty_rate(hypervisor, domain, until))
    return MemoryUse(dirty_rate=rate, sample=sample, notes=tuple(notes))


def look(domain: Any) -> bytes:
    """Pieces of a PC's memory, from places spread over it. Problem ``not-a-pc``, and libvirt's error."""
    xml = read_domain(domain.XMLDesc(0))
    if not xml.machine.startswith(("pc", "q35")):
        raise Problem("not-a-pc", f"where a machine {xml.machine} has its memory is not known here")
    places = spread(ram(xml.memory), random.Random())  # noqa: S311 - so that no page is always, or never, seen
    return b"".join(domain.memoryPeek(place, PIECE_BYTES, PHYSICAL) for place in places)


def ram(memory: int) -> list[range]:
    """Where a PC of QEMU's with so much memory certainly has RAM, in physical addresses: nowhere else may be read.

    Below 4 GiB it ends at 2 GiB (q35) at the lowest, if there is more than 2.75 GiB, and what is above begins at 4 GiB:
    at least what does not fit below 3.5 GiB (pc_memory_init in QEMU's hw/i386/pc.c).
    """
    found = [range(MIB, min(memory, 2 * GIB)), range(4 * GIB, 4 * GIB + memory - 7 * GIB // 2)]
    return [each for each in found if len(each) >= PIECE_BYTES]


def spread(where: list[range], chance: random.Random) -> list[int]:
    """Places of pieces: one at random in each of as many equal parts, rising."""
    pieces = [(each, index) for each in where for index in range(len(each) // PIECE_BYTES)]
    count = min(PIECES, len(pieces))
    found = [pieces[chance.randrange(n * len(pieces) // count, (n + 1) * len(pieces) // count)] for n in range(count)]
    return [each.start + index * PIECE_BYTES for each, index in found]


def _noted(hypervisor: Hypervisor, notes: list[str], what: str, ask: Any) -> Any:
    try:
        with hypervisor.calling(f"Measuring {what}"):
            return ask()
    except (Problem, AttributeError) as problem:  # AttributeError: a binding that is older than the call
        notes.append(f"{what} is not known: {problem}")
        return None


def _dirty_rate(hypervisor: Hypervisor, domain: Any, until: float) -> float:
    while True:
        ((_domain, told),) = hypervisor.connection().domainListGetStats([domain], DIRTY_RATE, 0)
        if told.get("dirtyrate.calc_status") == MEASURED:
            return float(told["dirtyrate.megabytes_per_second"] * MIB)
        if time.monotonic() > until:
            raise Problem("dirty-rate-late", "QEMU did not end its measurement in time")
        time.sleep(POLL_S)


def _try_codecs(memory: bytes, notes: list[str]) -> Sample | None:
    try:
        ended = subprocess.run(
            [*COMMAND, "sample"], input=memory, capture_output=True, timeout=TRIAL_S, cwd="/", env=environment()
        )
        if ended.returncode == 0:
            return msgspec.json.decode(ended.stdout, type=Sample)
        words = ended.stderr.decode(errors="replace").strip().splitlines()
        notes.append(f"what codecs make of the memory is not known: {words[-1][:200] if words else 'no reason given'}")
    except (subprocess.TimeoutExpired, msgspec.MsgspecError) as error:
        notes.append(f"what codecs make of the memory is not known: {error}")
    return None
