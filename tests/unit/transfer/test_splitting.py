"""Finding multifd packets, by properties: in whole streams, cut anywhere, damaged, and in what is none."""

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.transfer.multifd import HEADER_BYTES, PAGE_BYTES, PREAMBLE, SYNC, PacketHeader, parse_header
from vferry.transfer.splitting import Packet, Splitter

from .qemu import INITIAL, packet, page, streams

cut_lists = st.lists(st.integers(min_value=0), max_size=20)


def feed(splitter: Splitter, data: bytes, cuts: list[int]) -> list[Packet]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [found for start, end in pairwise(places) for found in splitter.feed(memoryview(data)[start:end])]


@given(streams, cut_lists)
def test_packets_are_found_however_the_stream_is_cut(parts: list[bytes], cuts: list[int]) -> None:
    splitter = Splitter()
    found = feed(splitter, b"".join(parts), cuts)
    ends = list(accumulate(map(len, parts)))
    assert [(one.start, one.end) for one in found] == list(pairwise(ends))
    assert splitter.position == splitter.begun == ends[-1]
    assert not splitter.inside
    assert not splitter.opaque


@given(streams, cut_lists, st.integers(min_value=0))
def test_a_truncated_stream_leaves_something_begun(parts: list[bytes], cuts: list[int], cut: int) -> None:
    data = b"".join(parts)
    size = cut % len(data)
    splitter = Splitter()
    found = feed(splitter, data[:size], cuts)
    ends = [0, *accumulate(map(len, parts))]
    assert splitter.begun == max(end for end in ends if end <= size)
    assert splitter.wanted > 0
    assert all(one.end <= size for one in found)


@given(streams)
def test_reading_what_is_wanted_never_passes_the_end_of_a_packet(parts: list[bytes]) -> None:
    data = memoryview(b"".join(parts))
    splitter = Splitter()
    while splitter.position < len(data):
        splitter.feed(data[splitter.position : splitter.position + splitter.wanted])
        assert splitter.begun <= splitter.position
    assert not splitter.inside


@given(st.binary(max_size=3000), cut_lists)
def test_anything_else_is_opaque(data: bytes, cuts: list[int]) -> None:
    splitter = Splitter()
    assert feed(splitter, data, cuts) == []
    assert splitter.position == len(data)


@given(streams, st.binary(min_size=HEADER_BYTES, max_size=3000), cut_lists)
def test_rubbish_after_packets_is_opaque(parts: list[bytes], rubbish: bytes, cuts: list[int]) -> None:
    splitter = Splitter()
    found = feed(splitter, b"".join(parts) + b"\0" + rubbish, cuts)
    assert len(found) == len(parts) - 1
    assert splitter.opaque
    assert not splitter.inside


@given(streams, st.integers(min_value=0), st.integers(1, 255), cut_lists)
def test_a_damaged_stream_raises_nothing_and_keeps_little(
    parts: list[bytes], place: int, change: int, cuts: list[int]
) -> None:
    data = bytearray(b"".join(parts))
    data[place % len(data)] ^= change
    splitter = Splitter()
    feed(splitter, bytes(data), cuts)
    assert splitter.position == len(data)
    assert len(splitter._head) <= HEADER_BYTES
    assert 0 < splitter.wanted <= 128 * PAGE_BYTES


@given(st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES))
def test_a_header_is_read_or_refused(data: bytes) -> None:
    assert parse_header(data) is None


@given(st.binary(min_size=HEADER_BYTES - 8, max_size=HEADER_BYTES - 8))
def test_a_header_with_the_right_start_is_bounded(data: bytes) -> None:
    header = parse_header(INITIAL[:8] + data)
    assert header is None or header.payload_bytes <= 128 * PAGE_BYTES


def test_what_a_header_says() -> None:
    data = packet([0, 4096, 8192], [page(1)], ramblock=b"/objects/m0")
    assert parse_header(data[:HEADER_BYTES]) == PacketHeader(
        sync=False, normal_pages=1, zero_pages=2, ramblock=b"/objects/m0"
    )


def test_the_stale_size_of_a_packet_without_pages_is_no_payload() -> None:
    splitter = Splitter()
    stream = INITIAL + packet(flags=SYNC, size=524288) + packet([0], [page(1)])
    assert [one.header.sync for one in splitter.feed(memoryview(stream))] == [True, False]


@pytest.mark.parametrize("flags", [1 << 1, 2 << 1, 16 << 1, 32 << 1, 1 << 31])
def test_what_qemu_has_compressed_and_device_state_are_opaque(flags: int) -> None:
    splitter = Splitter()
    assert not splitter.feed(memoryview(INITIAL + packet([0], [page(1)], flags=flags)))
    assert splitter.opaque


@given(st.binary(max_size=400), cut_lists)
def test_the_state_of_a_device_waits_for_nothing(state: bytes, cuts: list[int]) -> None:
    """Its packet is shorter than one of pages, and comes last, in the guest's pause."""
    header = PREAMBLE + (64).to_bytes(4, "big") + b"0000:00:14.0/vfio".ljust(256, b"\0") + bytes(4)
    data = INITIAL + packet([0], [page(1)]) + header + len(state).to_bytes(4, "big") + state
    splitter = Splitter()
    assert len(feed(splitter, data, cuts)) == 1
    assert splitter.opaque
    assert not splitter.inside
    assert splitter.position == len(data)


def test_the_main_stream_is_opaque_from_its_first_byte() -> None:
    splitter = Splitter()
    splitter.feed(memoryview(b"Q"))
    assert splitter.opaque


def test_pages_may_be_passed_over_before_any_of_them_has_come() -> None:
    whole = packet([0, 4096], [page(1), page(2)])
    splitter = Splitter()
    splitter.feed(memoryview(INITIAL + whole[: HEADER_BYTES - 1]))
    assert splitter.payload_ahead == 0
    splitter.feed(memoryview(whole[HEADER_BYTES - 1 : HEADER_BYTES]))
    assert splitter.payload_ahead == 2 * PAGE_BYTES
    found = splitter.pass_over()
    assert (found.start, found.end) == (len(INITIAL), len(INITIAL + whole))
    assert not splitter.inside
    splitter.feed(memoryview(whole)[: HEADER_BYTES + 1])
    assert splitter.payload_ahead == 0
