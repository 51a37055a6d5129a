"""Resident pages: what is copied of them, what is found again, and when nobody looks any more."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.model.memory import PRESENT
from vferry.transfer import resident
from vferry.transfer.differences import Pages
from vferry.transfer.multifd import PAGE_BYTES
from vferry.transfer.place import Place, parse_place
from vferry.transfer.resident import CHUNK_PAGES, NOWHERE, Lookup, Residents
from vferry.transfer.wire import DIGEST_BYTES, NO_HASHES

from .mapped import mapped, residents
from .qemu import page

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="who is not root may not see /proc/PID/pagemap")


def rows(*pages: bytes) -> Pages:
    return np.frombuffer(b"".join(pages), np.uint64).reshape(len(pages), -1)


def found(where: Residents, *pages: bytes) -> list[bytes | None]:
    """What the receiver would take for each page."""
    numbers = Lookup(where.hashes).find(rows(*pages))
    assert numbers is not None
    return [None if number == NOWHERE else where.at(np.array([number])).tobytes() for number in numbers]


@given(st.lists(st.integers(0, 9), max_size=12), st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_pages_that_are_there_are_found_and_no_others(there: list[int], asked: list[int]) -> None:
    where = residents(*map(page, there), bytes(PAGE_BYTES))
    assert where.count == len(set(there) - {0}), "none twice, and none that is zero"
    if where.count:
        wanted = [page(number) if number and number in there else None for number in asked]
        assert found(where, *map(page, asked)) == wanted


def test_what_was_never_used_stays_unused() -> None:
    where = Residents(16 * CHUNK_PAGES)
    with mapped(page(1), unused=8 * CHUNK_PAGES) as place:
        where.gather([place])
        first, count = place.addresses.start // PAGE_BYTES, len(place.addresses) // PAGE_BYTES
        with Path("/proc/self/pagemap").open("rb") as pagemap:
            pagemap.seek(8 * first)
            entries = np.frombuffer(pagemap.read(8 * count), np.uint64)
    assert np.flatnonzero(entries & np.uint64(PRESENT)).tolist() == [0]
    assert where.count == 1


def test_there_are_no_more_than_there_is_room_for() -> None:
    where = residents(*map(page, range(1, 100)), limit=10)
    assert where.count == 10
    assert len(where.hashes.digests) == 10 * DIGEST_BYTES


def test_there_are_no_more_than_there_is_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "GATHER_S", -1.0)
    assert residents(page(1)).count == 0


def test_what_was_copied_stays_as_it_was() -> None:
    where = Residents(16)
    with mapped(page(1)) as place:
        where.gather([place])
    assert found(where, page(1)) == [page(1)]


def test_each_migration_has_other_hashes() -> None:
    assert residents(page(1)).hashes.digests != residents(page(1)).hashes.digests


def test_where_hardly_anything_is_found_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "TRIED", 100)
    lookup = Lookup(residents(page(1)).hashes)
    assert lookup.find(rows(*[page(1)] * 2, *[page(2)] * 98)) is not None, "a share that is worth it"
    assert lookup.find(rows(*[page(3)] * 100)) is not None
    assert lookup.find(rows(page(1))) is None
    assert Lookup(NO_HASHES).find(rows(page(1))) is None


def test_a_process_that_has_ended_is_an_error() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(OSError, match=str(child)):
        Residents(16).gather([Place(child, range(4096, 8192))])


def test_places_are_as_the_kernel_writes_them() -> None:
    assert parse_place("17:7f0000000000-7f0000002000") == Place(17, range(0x7F0000000000, 0x7F0000002000))


@pytest.mark.parametrize(
    "text", ["", "17", "17:1000", "17:1001-2000", "17:2000-1000", "17:1000-1000", "-1:0-1000", "x:0-1000"]
)
def test_no_place(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not PID:START-END|are no whole pages"):
        parse_place(text)
