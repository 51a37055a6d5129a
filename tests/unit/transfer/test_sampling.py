"""What codecs are said to make of memory."""

import random

import pytest

from vferry.transfer.codecs import available
from vferry.transfer.multifd import PAGE_BYTES
from vferry.transfer.sampling import sample_memory


def half_random(pages: int) -> bytes:
    chance = random.Random(1)  # noqa: S311
    return b"".join(chance.randbytes(PAGE_BYTES // 2) + bytes(PAGE_BYTES // 2) for _ in range(pages))


def test_zero_pages_are_counted_and_not_compressed() -> None:
    found = sample_memory(bytes(300 * PAGE_BYTES) + half_random(100) + bytes(200))
    assert found is not None
    assert (found.pages, found.zero_pages) == (400, 300)
    assert found.codecs.keys() == available() - {"none"}
    assert all(1.8 < trial.ratio < 2.1 and trial.rate > 0 for trial in found.codecs.values())


def test_what_does_not_get_smaller_counts_as_it_is() -> None:
    found = sample_memory(random.Random(2).randbytes(200 * PAGE_BYTES), ["lz4", "zstd"])  # noqa: S311
    assert found is not None
    assert {name: trial.ratio for name, trial in found.codecs.items()} == {"lz4": 1.0, "zstd": 1.0}


@pytest.mark.parametrize(("size", "expected"), [(0, None), (PAGE_BYTES - 1, None), (PAGE_BYTES, (1, 1, {}))])
def test_there_may_be_nothing_to_compress(size: int, expected: tuple[object, ...] | None) -> None:
    found = sample_memory(bytes(size))
    assert (found and (found.pages, found.zero_pages, found.codecs)) == expected
