"""Frames of connections: as a kernel reads them, and back."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.host.announcement import checksum
from vferry.host.segments import ACK, Segment, backwards, read_tcp, tcp, udp
from vferry.model.connections import Way

PORTS = st.tuples(*[st.integers(0, 65535)] * 2)
WAYS = st.one_of(
    [
        st.builds(Way, source=addresses, destination=addresses, ports=PORTS)
        for addresses in (st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))
    ]
)
WORDS = st.integers(0, 2**32 - 1)
WAY = Way(source="10.0.0.1", destination="10.0.0.2", ports=(4000, 80))
GUEST = bytes.fromhex("525400aa000b")


@given(WAYS, WORDS, WORDS, st.none() | st.tuples(WORDS, WORDS))
def test_what_is_said_is_read(way: Way, seq: int, ack: int, timestamps: tuple[int, int] | None) -> None:
    said = Segment(way=way, seq=seq, ack=ack, flags=ACK, length=0)
    assert read_tcp(tcp(way, seq, ack, timestamps=timestamps)) == said


@given(WAYS)
def test_sums_are_right(way: Way) -> None:
    """Over what they cover, with themselves, a sum is 0."""
    for frame, protocol in ((tcp(way, 1, 2, timestamps=(3, 4)), 6), (udp(way), 17)):
        packet = frame[14:]
        six = ":" in way.source
        addresses, header = (packet[8:40], 40) if six else (packet[12:20], 20)
        payload = packet[header:]
        assert checksum(addresses + struct.pack("!II", len(payload), protocol) + payload) == 0
        assert six or checksum(packet[:20]) == 0


def test_numbers_begin_anew_at_their_end() -> None:
    assert read_tcp(tcp(WAY, 2**32 + 5, -1)) == Segment(way=WAY, seq=5, ack=2**32 - 1, flags=ACK, length=0)


def test_it_is_for_whom_it_is_said_to_be() -> None:
    assert tcp(WAY, 1, 2, to=GUEST)[:6] == GUEST
    assert backwards(backwards(WAY)) == WAY
    assert backwards(WAY) == Way(source="10.0.0.2", destination="10.0.0.1", ports=(80, 4000))


WHOLE = tcp(WAY, 1, 2)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        WHOLE[:40],
        WHOLE[:-1],
        udp(WAY),
        WHOLE[:20] + b"\x20\x00" + WHOLE[22:],  # more fragments follow
        WHOLE[:14] + b"\x46" + WHOLE[15:],  # options that are not there
        WHOLE[:46] + b"\xf0" + WHOLE[47:],
        WHOLE[:12] + b"\x08\x06" + WHOLE[14:],
        tcp(Way(source="fd00::1", destination="fd00::2", ports=(1, 2)), 1, 2)[:-1],
    ],
)
def test_what_is_no_whole_segment_is_not_read(frame: bytes) -> None:
    assert read_tcp(frame) is None


@given(st.binary(max_size=100), st.sampled_from([b"\x08\x00", b"\x86\xdd"]))
def test_whatever_a_guest_sends_is_read_or_not(rest: bytes, kind: bytes) -> None:
    found = read_tcp(bytes(12) + kind + rest)
    assert found is None or found.length >= 0


def test_data_is_counted_and_padding_is_not() -> None:
    frame = bytearray(WHOLE + b"hello")
    frame[16:18] = struct.pack("!H", 45)
    read = read_tcp(bytes(frame) + bytes(6))
    assert read is not None
    assert read.length == 5


@pytest.mark.parametrize(
    "way", [Way(source="10.0.0.1", destination="fd00::1", ports=(1, 2)), Way(source="::1", destination="::2")]
)
def test_what_is_no_way_is_refused(way: Way) -> None:
    with pytest.raises(ValueError, match=r"not of one family|no ports"):
        tcp(way, 1, 2)
    with pytest.raises(ValueError, match=r"not of one family|no ports"):
        udp(way)
