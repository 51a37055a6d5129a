"""The gateway protocol, version 1: pure functions on bytes, no I/O.

One TCP connection carries one connection of one service. Inside mutual TLS 1.3 (or bare, between two plain
QEMU processes) the sending gateway, which connects, speaks first. Integers are big-endian::

    hello    sender → receiver, once
        4  magic "VFRY"
        1  version, 1
        1  length of the service name, 1 to 32
        2  length of the token, 0 to 256
        n  service name: a lower-case letter, then lower-case letters, digits and "-", ASCII
        m  token, any bytes

    reply    receiver → sender, once
        4  magic "VFRY"
        1  version, 1
        1  status: 0 accepted, 1 unknown service, 2 wrong token, 3 the service's socket does not answer

    frames   both ways, independently of each other
        4  length of the payload, 0 to 1,048,576; 0 is the END frame: nothing follows in this direction
        n  payload

Frames follow the reply "accepted"; after any other the connection ends. The receiver replies when it is connected
to the service's own socket, and the sender opens a service's next connection only after the reply to the one
before: so connections reach the destination in their order of arrival.

END carries a half-close. A connection that ends in a direction without END was truncated, whatever TCP or TLS
say about it, and is never passed on as a clean end. After END came in both directions either side closes.
"""

import re
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

MAGIC = b"VFRY"
VERSION = 1
SERVICE_LIMIT = 32
TOKEN_LIMIT = 256
FRAME_LIMIT = 1 << 20

HELLO = struct.Struct(">4sBBH")
REPLY = struct.Struct(">4sBB")
FRAME = struct.Struct(">I")
END = FRAME.pack(0)

SERVICE_NAME = re.compile(rf"[a-z][a-z0-9-]{{0,{SERVICE_LIMIT - 1}}}")


class WireError(Exception):
    """The other side does not keep to the protocol, or a stream was cut. Give the connection up."""


class Status(IntEnum):
    """The receiving gateway's answer to a hello."""

    ACCEPTED = 0
    UNKNOWN_SERVICE = 1
    WRONG_TOKEN = 2
    UNREACHABLE = 3


class Hello(NamedTuple):
    """What the sending gateway asks for."""

    service: str
    token: bytes


def pack_hello(hello: Hello) -> bytes:
    """Encode a hello; raises `WireError` for a name or token out of bounds."""
    if not SERVICE_NAME.fullmatch(hello.service) or len(hello.token) > TOKEN_LIMIT:
        raise WireError("service name or token out of bounds")
    name = hello.service.encode()
    return HELLO.pack(MAGIC, VERSION, len(name), len(hello.token)) + name + hello.token


def hello_body_size(header: bytes) -> int:
    """Tell how many bytes follow a hello's first eight, at most 288; raises `WireError`."""
    magic, version, name_size, token_size = HELLO.unpack(header)
    _check_preamble(magic, version)
    if not 1 <= name_size <= SERVICE_LIMIT or token_size > TOKEN_LIMIT:
        raise WireError("hello out of bounds")
    return int(name_size + token_size)


def unpack_hello(header: bytes, body: bytes) -> Hello:
    """Decode a hello from its first eight bytes and the `hello_body_size` ones after; raises `WireError`."""
    if len(body) != hello_body_size(header):
        raise WireError("hello truncated")
    name_size = header[5]
    name = body[:name_size].decode("ascii", "replace")
    if not SERVICE_NAME.fullmatch(name):
        raise WireError("service name out of bounds")
    return Hello(name, body[name_size:])


def pack_reply(status: Status) -> bytes:
    """Encode a reply."""
    return REPLY.pack(MAGIC, VERSION, status)


def unpack_reply(data: bytes) -> Status:
    """Decode the six bytes of a reply; raises `WireError`."""
    magic, version, status = REPLY.unpack(data)
    _check_preamble(magic, version)
    try:
        return Status(status)
    except ValueError:
        raise WireError(f"unknown status {status}") from None


def _check_preamble(magic: bytes, version: int) -> None:
    if magic != MAGIC:
        raise WireError("not a vferry gateway")
    if version != VERSION:
        raise WireError(f"gateway protocol version {version}, not {VERSION}")


class FrameDecoder:
    """Takes frames apart as bytes arrive, cut anywhere, without copying or holding back payload."""

    def __init__(self) -> None:
        self.ended = False
        self._header = b""
        self._remaining = 0

    def payloads(self, data: memoryview) -> Iterator[memoryview]:
        """Yield the payload in `data` as slices of it; raises `WireError` for what cannot be a frame."""
        while data:
            if self.ended:
                raise WireError("data after the end frame")
            if self._remaining:
                payload = data[: self._remaining]
                self._remaining -= len(payload)
                data = data[len(payload) :]
                yield payload
            else:
                data = self._take_header(data)

    def _take_header(self, data: memoryview) -> memoryview:
        missing = FRAME.size - len(self._header)
        self._header += data[:missing]
        if len(self._header) == FRAME.size:
            (self._remaining,) = FRAME.unpack(self._header)
            self._header = b""
            self.ended = self._remaining == 0
            if self._remaining > FRAME_LIMIT:
                raise WireError(f"frame of {self._remaining} bytes, more than {FRAME_LIMIT}")
        return data[missing:]
