"""Looking at a guest's memory: where, how much of it, and what is said where it cannot be."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from fake_libvirt import FakeAgents, FakeDomain, FakeLibvirt
from hypothesis import given
from hypothesis import strategies as st
from xml_samples import domain

from vferry.host import guest_memory
from vferry.host.guest_memory import MIB, PIECE_BYTES, PIECES, measure_memory, ram, resident_places, spread
from vferry.host.hypervisor import Hypervisor
from vferry.model.memory import MemoryUse
from vferry.model.problem import Problem
from vferry.transfer.place import parse_place

MEASURING, MEASURED = {"dirtyrate.calc_status": 1}, {"dirtyrate.calc_status": 2, "dirtyrate.megabytes_per_second": 7}
MEMORY = 256 * MIB


HOLDING = f"""
import mmap, random, sys
memory = mmap.mmap(-1, {MEMORY}, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
half = random.Random(1).randbytes(2048) + bytes(2048)
memory[: {MEMORY} // 4] = half * ({MEMORY} // 4 // 4096)
memory[{MEMORY} // 4 : {MEMORY} // 2] = bytes({MEMORY} // 4)
print(flush=True)
sys.stdin.read()
"""


class Qemu:
    """A process with a guest's memory in it, a quarter half random, a quarter zero and the rest never used."""

    def __init__(self, root: Path, process: subprocess.Popen[bytes]) -> None:
        self.root = root
        self.process = process
        self.pid = root / "run/libvirt/qemu/guest1.pid"
        self.pid.parent.mkdir(parents=True)
        self.pid.write_text(f"{process.pid}\n")
        (root / "proc").symlink_to("/proc")
        self.guest = FakeDomain(live=domain(), persistent=domain())
        self.guest.dirty_rates = [MEASURING, MEASURED]

    def measure(self) -> MemoryUse:
        hypervisor = Hypervisor(library=FakeLibvirt(self.guest), agent_library=FakeAgents())
        return measure_memory(hypervisor, "guest1", 1, self.root)

    def pages_in_memory(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])


@pytest.fixture(scope="module")
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Not the tests' own, whose largest mapping may be another test's."""
    holding = (sys.executable, "-S", "-c", HOLDING)
    with subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        started.stdout.readline()
        yield started


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process: subprocess.Popen[bytes]) -> Qemu:
    monkeypatch.setattr(guest_memory, "POLL_S", 0.001)
    monkeypatch.setattr(guest_memory, "PATIENCE_S", 5.0)
    return Qemu(tmp_path, process)


@pytest.mark.skipif(os.geteuid() != 0, reason="the agent runs as root: whoever does not may not see /proc/PID/pagemap")
def test_a_guest_is_looked_at(qemu: Qemu) -> None:
    used = qemu.pages_in_memory()
    found = qemu.measure()
    assert found.notes == ()
    assert found.dirty_rate == 7 * MIB
    assert found.sample is not None
    assert found.sample.pages == PIECES * PIECE_BYTES // 4096
    assert found.sample.zero_pages / found.sample.pages == pytest.approx(0.75, abs=0.02)
    assert found.sample.codecs
    assert qemu.pages_in_memory() == used, "what was never used stays so"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("old QEMU", "the dirty rate is not known: Measuring the dirty rate: QEMU does not support"),
        ("slow QEMU", "the dirty rate is not known: QEMU did not end its measurement in time"),
        ("a job", "the dirty rate is not known: the guest is at another job"),
        ("no process", "the memory is not known: [Errno 2]"),
        ("no number", "the memory is not known: invalid literal"),
        ("too large", "the memory is not known: no mapping of QEMU's is as large"),
        ("no numpy", "the memory is not known: no numpy"),
        ("nonsense", "the memory is not known: "),
    ],
)
def test_what_cannot_be_known_is_said(qemu: Qemu, monkeypatch: pytest.MonkeyPatch, what: str, said: str) -> None:
    monkeypatch.setattr(guest_memory, "PATIENCE_S", -1.0)
    monkeypatch.setattr(guest_memory, "look", seen_by(what))
    qemu.guest.dirty_rates = {"old QEMU": [], "slow QEMU": [MEASURING]}.get(what, [MEASURED])
    qemu.guest.job = {} if what == "a job" else None
    if what == "no process":
        qemu.pid.unlink()
    if what == "no number":
        qemu.pid.write_text("")
    if what == "too large":
        assert qemu.guest.live_xml is not None
        qemu.guest.live_xml = qemu.guest.live_xml.replace("<memory unit='KiB'>", "<memory unit='GiB'>")
    process = {"no numpy": "import sys; sys.exit('no numpy')", "nonsense": "print('{}')"}.get(what)
    if process:
        monkeypatch.setattr(guest_memory, "COMMAND", (sys.executable, "-S", "-c", process))
    found = qemu.measure()
    (note,) = found.notes
    assert note.startswith(said)
    known = "QEMU" not in what and what != "a job"
    assert (found.dirty_rate is None) == (not known)
    assert (found.sample is None) == known


def seen_by(what: str) -> object:
    """Whoever is not root sees nothing of a process's pages: only what fails before is looked for in earnest."""
    real = guest_memory.look
    if what in ("no process", "no number", "too large"):
        return real
    return lambda *_arguments: guest_memory.Seen(bytes(range(256)) * 64, 4)


def test_where_guests_memory_is(qemu: Qemu) -> None:
    off, lost = FakeDomain(persistent=domain(name="off")), FakeDomain(live=domain(name="lost"))
    hypervisor = Hypervisor(library=FakeLibvirt(qemu.guest, off, lost), agent_library=FakeAgents())
    (place,) = resident_places(hypervisor, qemu.root)
    found = parse_place(place)
    assert found.pid == qemu.process.pid
    assert len(found.addresses) == MEMORY


def test_a_guest_that_is_off_is_a_problem(qemu: Qemu) -> None:
    qemu.guest.live_xml = None
    with pytest.raises(Problem) as caught:
        qemu.measure()
    assert caught.value.code == "guest-off"


MAPS = """\
559a1a400000-559a1b000000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0010000000 rw-p 00000000 00:00 0
7f0010000000-7f0090000000 ---p 00000000 00:00 0
7f0090000000-7f0091000000 rw-s 00000000 00:01 5                          /memfd:pc.ram (deleted)
"""


@pytest.mark.parametrize(("memory", "size"), [(256 * MIB, 256 * MIB), (200 * MIB, 200 * MIB), (512 * MIB, 256 * MIB)])
def test_the_memory_is_the_largest_mapping(memory: int, size: int) -> None:
    assert ram(MAPS, memory) == range(0x7F0000000000, 0x7F0000000000 + size)


@pytest.mark.parametrize("maps", ["", MAPS])
def test_a_mapping_that_is_too_small_is_not_it(maps: str) -> None:
    with pytest.raises(Problem):
        ram(maps, 1024 * MIB)


@given(st.integers(PIECE_BYTES, 64 << 30), st.integers())
def test_pieces_are_spread_and_do_not_overlap(memory: int, seed: int) -> None:
    where = range(1 << 40, (1 << 40) + memory)
    places = spread(where, random.Random(seed))  # noqa: S311
    assert len(places) == min(PIECES, memory // PIECE_BYTES)
    assert all(after - before >= PIECE_BYTES for before, after in pairwise(places))
    assert all(place in where and place + PIECE_BYTES - 1 in where for place in places)
