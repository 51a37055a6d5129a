"""A block's stream without its differences, and whole again."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.transfer.multifd import HEADER_BYTES, PAGE_BYTES, parse_header
from vferry.transfer.table import DIFFERENCE, KEPT, PLAIN, Table, flatten_header, leave_out, pages_at, put_back
from vferry.transfer.wire import WireError

from .qemu import packet, page

all_fates = st.lists(st.lists(st.sampled_from([PLAIN, KEPT, DIFFERENCE]), max_size=5), max_size=4)


def packet_of(number: int, normal: int) -> bytes:
    offsets = [(9 * number + place) * PAGE_BYTES for place in range(normal + 2)]
    return packet(offsets, [page(9 * number + place) for place in range(normal)])


@given(all_fates, st.booleans(), st.binary(max_size=20), st.binary(max_size=20))
def test_all_comes_back_but_the_differences(fates: list[list[int]], kept: bool, before: bytes, after: bytes) -> None:  # noqa: FBT001
    """`kept` says whether the block's pages have fates at all."""
    parts = [packet_of(number, len(each)) for number, each in enumerate(fates)]
    starts = [len(before) + sum(map(len, parts[:number])) for number in range(len(parts))]
    whole = before + b"".join(parts) + after
    joined = bytes(fate for each in fates for fate in each) if kept else b""
    stream = memoryview(bytearray(whole))
    headers = [parse_header(stream[start:][:HEADER_BYTES]) for start in starts]
    packets = [(start, header) for start, header in zip(starts, headers, strict=True) if header]
    for start in starts:
        flatten_header(stream, start)
    size = leave_out(stream, packets, joined)
    assert size == len(whole) - joined.count(DIFFERENCE) * PAGE_BYTES

    restored = put_back(stream[:size], Table(starts, joined), len(whole))
    assert restored.packets == packets
    expected = memoryview(bytearray(whole))
    for (start, header), each in zip(packets, fates, strict=True):
        if kept:
            there = [fate != DIFFERENCE for fate in each]
            assert (pages_at(restored.stream, start, header)[there] == pages_at(expected, start, header)[there]).all()
            pages_at(restored.stream, start, header)[:] = pages_at(expected, start, header)
    assert restored.stream == expected


@pytest.mark.parametrize("change", [-PAGE_BYTES, -1, 1, PAGE_BYTES])
@pytest.mark.parametrize("fates", [[KEPT, KEPT], [DIFFERENCE, KEPT], [KEPT, DIFFERENCE], [DIFFERENCE, DIFFERENCE]])
def test_more_or_less_than_is_due_is_an_error(fates: list[int], change: int) -> None:
    stream = memoryview(bytearray(packet_of(0, 2)))
    left = len(stream) - fates.count(DIFFERENCE) * PAGE_BYTES + change
    with pytest.raises(WireError):
        put_back(
            memoryview(bytearray(stream) + bytes(PAGE_BYTES))[: max(left, 0)], Table([0], bytes(fates)), len(stream)
        )


@given(st.lists(st.integers(0, 2**14), max_size=3), st.binary(max_size=4), st.integers(1, 2**15), st.integers(0, 2**13))
def test_a_table_that_lies_is_an_error(starts: list[int], fates: bytes, size: int, passed: int) -> None:
    left = memoryview(packet_of(0, 1) + packet_of(1, 2))
    with suppress(WireError):
        assert len(put_back(left, Table(starts, fates), size, passed).stream) == size
