"""The gateway protocol, by properties."""

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.transfer.wire import (
    FRAME,
    FRAME_LIMIT,
    HELLO,
    REPLY,
    Carriage,
    FrameDecoder,
    Hello,
    Reply,
    Status,
    VersionError,
    WireError,
    hello_body_size,
    pack_hello,
    pack_reply,
    unpack_hello,
    unpack_reply,
)

services = st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True)
hellos = st.builds(
    Hello,
    services,
    st.binary(max_size=256),
    st.sampled_from(Carriage),
    st.integers(0, 255),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=8, max_size=8),
)
replies = st.builds(Reply, st.sampled_from(Status), st.frozensets(st.integers(0, 15)), st.integers(0, 2**32 - 1))


@given(hellos)
def test_a_hello_comes_back(hello: Hello) -> None:
    data = pack_hello(hello)
    header, body = data[: HELLO.size], data[HELLO.size :]
    assert hello_body_size(header) == len(body)
    assert unpack_hello(header, body) == hello


@given(hellos, st.integers(min_value=1))
def test_a_truncated_hello_is_an_error(hello: Hello, cut: int) -> None:
    data = pack_hello(hello)
    body = data[HELLO.size :]
    with pytest.raises(WireError):
        unpack_hello(data[: HELLO.size], body[: -1 - cut % len(body)])


@given(st.binary(min_size=HELLO.size, max_size=HELLO.size))
def test_garbage_is_no_hello_or_a_bounded_one(header: bytes) -> None:
    with suppress(WireError):
        assert 1 <= hello_body_size(header) <= 304


@given(hellos, st.data())
def test_a_damaged_hello_is_an_error_or_another_valid_one(hello: Hello, data: st.DataObject) -> None:
    packed = bytearray(pack_hello(hello))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    header, body = bytes(packed[: HELLO.size]), bytes(packed[HELLO.size :])
    try:
        found = unpack_hello(header, body)
    except WireError:
        return
    assert pack_hello(found) == packed


@pytest.mark.parametrize("service", ["", "Memory", "1st", "a" * 33, "ü", "a b", "memory\n"])
def test_a_service_name_out_of_bounds_is_not_sent(service: str) -> None:
    with pytest.raises(WireError):
        pack_hello(Hello(service, b""))


def test_a_token_out_of_bounds_is_not_sent() -> None:
    with pytest.raises(WireError):
        pack_hello(Hello("memory", bytes(257)))


@given(replies)
def test_a_reply_comes_back(reply: Reply) -> None:
    assert unpack_reply(pack_reply(reply)) == reply


@given(st.binary(min_size=REPLY.size, max_size=REPLY.size))
def test_garbage_is_no_reply(data: bytes) -> None:
    if not data.startswith(b"VFRY\x02"):
        with pytest.raises(WireError):
            unpack_reply(data)


def test_another_version_and_another_status_are_errors() -> None:
    with pytest.raises(VersionError, match="version 1"):
        unpack_reply(b"VFRY\x01\x00" + bytes(6))
    with pytest.raises(WireError, match="status 9"):
        unpack_reply(b"VFRY\x02\x09" + bytes(6))


def frames(payloads: list[bytes]) -> bytes:
    return b"".join(FRAME.pack(len(payload)) + payload for payload in payloads)


def decode(decoder: FrameDecoder, data: bytes, cuts: list[int]) -> bytes:
    """Feed `data` cut at the given places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    pieces = [data[start:end] for start, end in pairwise(places)]
    return b"".join(bytes(part) for piece in pieces for part in decoder.payloads(memoryview(piece)))


payload_lists = st.lists(st.binary(min_size=1, max_size=300), max_size=20)
cut_lists = st.lists(st.integers(min_value=0), max_size=30)


@given(payload_lists, cut_lists)
def test_frames_come_back_however_they_are_cut(payloads: list[bytes], cuts: list[int]) -> None:
    decoder = FrameDecoder()
    assert decode(decoder, frames([*payloads, b""]), cuts) == b"".join(payloads)
    assert decoder.ended


@given(payload_lists, cut_lists, st.integers(min_value=1))
def test_truncated_frames_never_end(payloads: list[bytes], cuts: list[int], cut: int) -> None:
    data = frames([*payloads, b""])
    decoder = FrameDecoder()
    got = decode(decoder, data[: len(data) - 1 - cut % len(data)], cuts)
    assert b"".join(payloads).startswith(got)
    assert not decoder.ended


@given(payload_lists, st.binary(min_size=1, max_size=20), cut_lists)
def test_data_after_the_end_is_an_error(payloads: list[bytes], more: bytes, cuts: list[int]) -> None:
    with pytest.raises(WireError, match="after the end"):
        decode(FrameDecoder(), frames([*payloads, b""]) + more, cuts)


@given(st.integers(FRAME_LIMIT + 1, 2**32 - 1))
def test_a_frame_out_of_bounds_is_an_error(size: int) -> None:
    with pytest.raises(WireError, match="more than"):
        decode(FrameDecoder(), FRAME.pack(size), [])


@given(st.binary(max_size=2000), cut_lists)
def test_garbage_raises_nothing_but_wire_errors(data: bytes, cuts: list[int]) -> None:
    with suppress(WireError):
        decode(FrameDecoder(), data, cuts)


def test_payload_is_not_copied() -> None:
    data = memoryview(bytearray(frames([b"abc"])))
    (payload,) = FrameDecoder().payloads(data)
    assert payload.obj is data.obj
