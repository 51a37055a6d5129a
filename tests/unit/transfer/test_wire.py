"""The gateway protocol, by properties."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.transfer.wire import (
    DIGEST_BYTES,
    HELLO,
    KEY_BYTES,
    NO_HASHES,
    REPLY,
    RESIDENT_LIMIT,
    Carriage,
    Hashes,
    Hello,
    Reply,
    Status,
    VersionError,
    WireError,
    hello_body_size,
    pack_hello,
    pack_reply,
    reply_body_size,
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
numbers = st.frozensets(st.integers(0, 15))
digests = st.binary(max_size=100).map(lambda data: data[: len(data) // DIGEST_BYTES * DIGEST_BYTES])
hashes = st.builds(Hashes, st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES), digests).map(
    lambda found: found if found.pages else NO_HASHES
)
replies = st.builds(Reply, st.sampled_from(Status), numbers, st.integers(0, 2**32 - 1), numbers, hashes)


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
    packed = pack_reply(reply)
    header, body = packed[: REPLY.size], packed[REPLY.size :]
    assert reply_body_size(header) == len(body)
    assert unpack_reply(header, body) == reply


def test_a_reply_without_its_hashes_or_with_too_many_is_an_error() -> None:
    packed = pack_reply(Reply(Status.ACCEPTED, resident=Hashes(bytes(KEY_BYTES), bytes(2 * DIGEST_BYTES))))
    with pytest.raises(WireError, match="truncated"):
        unpack_reply(packed[: REPLY.size], packed[REPLY.size : -1])
    with pytest.raises(WireError, match="out of bounds"):
        reply_body_size(packed[: REPLY.size - 4] + (RESIDENT_LIMIT + 1).to_bytes(4, "big"))


@given(st.binary(min_size=REPLY.size, max_size=REPLY.size))
def test_garbage_is_no_reply(data: bytes) -> None:
    if not data.startswith(b"VFRY\x06"):
        with pytest.raises(WireError):
            unpack_reply(data)


def test_another_version_and_another_status_are_errors() -> None:
    with pytest.raises(VersionError, match="version 1"):
        unpack_reply(b"VFRY\x01\x00" + bytes(12))
    with pytest.raises(WireError, match="status 9"):
        unpack_reply(b"VFRY\x06\x09" + bytes(12))
