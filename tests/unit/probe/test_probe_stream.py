"""The watched connection's bytes, and what the kernel says of it."""

import itertools
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.probe.stream import RECORD, RETRANSMISSIONS, Content, Echo, parsed_retransmissions, retransmissions

CONTENT = Content(b"session")
BYTES = b"".join(map(CONTENT.record, range(6)))


def test_a_record_has_its_number_and_no_other_is_like_it() -> None:
    records = [CONTENT.record(number) for number in range(300)]
    assert {len(record) for record in records} == {RECORD}
    assert [int.from_bytes(record[:8], "big") for record in records] == list(range(300))
    assert len({record[8:] for record in records}) == 300
    assert Content(b"another").record(1)[8:] != records[1][8:]


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


@given(st.lists(st.integers(0, len(BYTES)), max_size=12))
def test_an_echo_may_come_in_any_pieces(cuts: list[int]) -> None:
    echo = Echo(CONTENT)
    for part in pieces(BYTES, cuts):
        before = echo.received
        assert echo.take(part) == ((before + len(part)) // RECORD > before // RECORD)
    assert (echo.received, echo.echoed, echo.wrong) == (len(BYTES), 6, 0)


@given(st.sets(st.integers(0, len(BYTES) - 1), min_size=1), st.lists(st.integers(0, len(BYTES)), max_size=12))
def test_every_byte_that_differs_is_found(places: set[int], cuts: list[int]) -> None:
    spoilt = bytes(byte ^ (at in places) for at, byte in enumerate(BYTES))
    echo = Echo(CONTENT)
    for part in pieces(spoilt, cuts):
        echo.take(part)
    assert (echo.received, echo.wrong) == (len(BYTES), len(places))
    assert echo.echoed == 6 - len({place // RECORD for place in places})


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(BYTES[RECORD : 2 * RECORD] + BYTES[:RECORD] + BYTES[2 * RECORD :], id="two exchanged"),
        pytest.param(BYTES[:RECORD] + BYTES, id="one twice"),
        pytest.param(BYTES[:RECORD] + BYTES[RECORD + 1 :], id="a byte missing"),
    ],
)
def test_what_is_out_of_order_is_wrong(changed: bytes) -> None:
    echo = Echo(CONTENT)
    echo.take(changed)
    assert echo.wrong > 0
    assert echo.echoed < 6


def test_the_kernel_s_account_is_read_at_its_place() -> None:
    info = bytearray(struct.pack("=8B40I", *range(8), *range(1000, 1040)))
    assert parsed_retransmissions(bytes(info)) == 1023
    assert parsed_retransmissions(bytes(info[: RETRANSMISSIONS.size])) == 1023
    assert parsed_retransmissions(bytes(info[: RETRANSMISSIONS.size - 1])) is None


def test_a_socket_that_is_no_tcp_has_none() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert retransmissions(sock) is None
