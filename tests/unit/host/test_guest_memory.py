"""Looking at a guest's memory: where, how much of it, and what is said where it cannot be."""

import random
import sys
from itertools import pairwise

import pytest
from fake_libvirt import FakeAgents, FakeDomain, FakeError, FakeLibvirt
from hypothesis import given
from hypothesis import strategies as st
from xml_samples import domain

from vferry.host import guest_memory
from vferry.host.guest_memory import GIB, MIB, PIECE_BYTES, PIECES, measure_memory, ram, spread
from vferry.host.hypervisor import Hypervisor
from vferry.model.memory import MemoryUse
from vferry.model.problem import Problem

MEASURING, MEASURED = {"dirtyrate.calc_status": 1}, {"dirtyrate.calc_status": 2, "dirtyrate.megabytes_per_second": 7}


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> FakeDomain:
    monkeypatch.setattr(guest_memory, "POLL_S", 0.001)
    monkeypatch.setattr(guest_memory, "PATIENCE_S", -1.0)
    made = FakeDomain(live=domain(), persistent=domain())
    made.dirty_rates = [MEASURING, MEASURED]
    return made


def measure(guest: FakeDomain) -> MemoryUse:
    hypervisor = Hypervisor(library=FakeLibvirt(guest), agent_library=FakeAgents())
    return measure_memory(hypervisor, guest.name(), 1)


def test_a_guest_is_looked_at(guest: FakeDomain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_memory, "PATIENCE_S", 5.0)
    chance = random.Random(1)  # noqa: S311
    guest.memory = lambda place, size: (
        bytes(size) if place < 128 * MIB else chance.randbytes(size // 2) + bytes(size // 2)
    )
    found = measure(guest)
    assert found.dirty_rate == 7 * MIB
    assert found.sample is not None
    assert found.sample.pages == PIECES * PIECE_BYTES // 4096
    # The half that is used is half zero pages.
    assert 0.6 < found.sample.zero_pages / found.sample.pages < 0.9
    assert found.sample.codecs
    assert found.notes == ()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("old QEMU", "the dirty rate is not known: Measuring the dirty rate: QEMU does not support"),
        ("slow QEMU", "the dirty rate is not known: QEMU did not end its measurement in time"),
        ("no peeking", "the memory is not known: Measuring the memory: cannot be read"),
        ("no PC", "the memory is not known: where a machine virt-10.0 has its memory is not known here"),
        ("no numpy", "what codecs make of the memory is not known: no numpy"),
        ("nonsense", "what codecs make of the memory is not known: "),
    ],
)
def test_what_cannot_be_known_is_said(guest: FakeDomain, monkeypatch: pytest.MonkeyPatch, what: str, said: str) -> None:
    def refuse(_place: int, _size: int) -> bytes:
        raise FakeError(1, "cannot be read")

    guest.dirty_rates = {"old QEMU": [], "slow QEMU": [MEASURING]}.get(what, [MEASURED])
    guest.memory = refuse if what == "no peeking" else guest.memory
    if what == "no PC":
        assert guest.live_xml is not None
        guest.live_xml = guest.live_xml.replace("pc-q35-10.0", "virt-10.0")
    process = {"no numpy": "import sys; sys.exit('no numpy')", "nonsense": "print('{}')"}.get(what)
    if process:
        monkeypatch.setattr(guest_memory, "COMMAND", (sys.executable, "-S", "-c", process))
    found = measure(guest)
    (note,) = found.notes
    assert note.startswith(said)
    assert (found.dirty_rate is None) == ("QEMU" in what)
    assert (found.sample is None) == ("QEMU" not in what)


def test_a_guest_that_is_off_is_a_problem(guest: FakeDomain) -> None:
    guest.live_xml = None
    with pytest.raises(Problem) as caught:
        measure(guest)
    assert caught.value.code == "guest-off"


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (MIB, []),
        (256 * MIB, [range(MIB, 256 * MIB)]),
        (3 * GIB, [range(MIB, 2 * GIB)]),
        (8 * GIB, [range(MIB, 2 * GIB), range(4 * GIB, 4 * GIB + 9 * GIB // 2)]),
    ],
)
def test_only_what_is_certainly_memory_is_read(memory: int, expected: list[range]) -> None:
    assert ram(memory) == expected


@given(st.integers(0, 64 * GIB), st.integers())
def test_pieces_are_spread_and_do_not_overlap(memory: int, seed: int) -> None:
    where = ram(memory)
    places = spread(where, random.Random(seed))  # noqa: S311
    assert len(places) == min(PIECES, sum(len(each) // PIECE_BYTES for each in where))
    assert all(after - before >= PIECE_BYTES for before, after in pairwise(places))
    assert all(any(place in each and place + PIECE_BYTES - 1 in each for each in where) for place in places)
