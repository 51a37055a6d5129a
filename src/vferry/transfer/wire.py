"""The gateway protocol, version 6: pure functions on bytes, no I/O.

One TCP connection carries one connection of one service. Inside mutual TLS 1.3 (or bare, between two plain
QEMU processes) the sending gateway, which connects, speaks first. Integers are big-endian::

    hello    sender → receiver, once
        4  magic "VFRY"
        1  version, 6
        1  length of the service name, 1 to 32
        2  length of the token, 0 to 256
        1  carriage of what the sender sends: 0 bytes as they are, 1 blocks (`vferry.transfer.block`)
        1  stream: 0 to open a connection, higher for one more stream of the blocks of an open one
        2  channel: the number of the connection in its session
        4  slots of 4 KiB for page copies that the sender would like the session to have
        8  session: what connections that may refer to each other's pages have in common
        n  service name: a lower-case letter, then lower-case letters, digits and "-", ASCII
        m  token, any bytes

    reply    receiver → sender, once
        4  magic "VFRY"
        1  version, 6
        1  status: 0 accepted, 1 unknown service, 2 wrong token, 3 the service's socket does not answer,
           4 another version, 5 no blocks here
        2  codecs that blocks may use, a bit each: 1 << its number
        2  those of them that have the hardware here which they are for
        4  slots for page copies that this connection may use, at most as many as asked for
        4  resident pages of the session (`vferry.transfer.resident`), told to its first connection: n, or 0
       16  if there are any: the key of their hashes
     16·n  their hashes

    frames   both ways, independently of each other
        4  length of the payload, 1 to 2,097,152; or 2^32 - 1, the END frame: nothing follows in this direction
        n  payload: bytes as they are, or one block; behind a block may follow bytes as they are, as many as it says

Every version begins hello and reply with the magic and its number, so that an old gateway and a new one can say what
is wrong; version 1 had neither of the other fields, and closed the connection without a reply to another version.

Frames follow the reply "accepted"; after any other the connection ends. The receiver replies when it is connected
to the service's own socket, and the sender opens a service's next connection only after the reply to the one
before: so connections reach the destination in their order of arrival.

END carries a half-close. A connection that ends in a direction without END was truncated, whatever TCP or TLS
say about it, and is never passed on as a clean end. After END came in both directions either side closes.
"""

import re
import struct
from enum import IntEnum
from typing import NamedTuple

MAGIC = b"VFRY"
VERSION = 6
PREAMBLE_BYTES = 5
SERVICE_LIMIT = 32
TOKEN_LIMIT = 256
FRAME_LIMIT = 1 << 21
KEY_BYTES = DIGEST_BYTES = 16
RESIDENT_LIMIT = 1 << 20
"""Pages: 4 GiB, of which the hashes are 16 MiB."""

HELLO = struct.Struct(">4sBBH")
ASKED = struct.Struct(">BBHI8s")
REPLY = struct.Struct(">4sBBHHII")
FRAME = struct.Struct(">I")
END_LENGTH = 2**32 - 1
"""Far from any length: 0 would be one that has been damaged in a single byte."""
END = FRAME.pack(END_LENGTH)

SERVICE_NAME = re.compile(rf"[a-z][a-z0-9-]{{0,{SERVICE_LIMIT - 1}}}")


class WireError(Exception):
    """The other side does not keep to the protocol, or a stream was cut. Give the connection up."""


class VersionError(WireError):
    """The other side speaks another version of the protocol: both hosts need the same vferry."""


class Status(IntEnum):
    """The receiving gateway's answer to a hello."""

    ACCEPTED = 0
    UNKNOWN_SERVICE = 1
    WRONG_TOKEN = 2
    UNREACHABLE = 3
    OTHER_VERSION = 4
    NO_BLOCKS = 5


class Carriage(IntEnum):
    """How the bytes from the source travel; those from the destination travel as they are."""

    AS_IS = 0
    BLOCKS = 1


class Hello(NamedTuple):
    """What the sending gateway asks for."""

    service: str
    token: bytes
    carriage: Carriage = Carriage.AS_IS
    stream: int = 0
    channel: int = 0
    slots: int = 0
    session: bytes = bytes(8)


class Hashes(NamedTuple):
    """What the sender is told of resident pages: the key, and a digest for each, by its number."""

    key: bytes
    digests: bytes

    @property
    def pages(self) -> int:
        return len(self.digests) // DIGEST_BYTES


NO_HASHES = Hashes(b"", b"")


class Reply(NamedTuple):
    """What the receiving gateway answers. `codecs` are the numbers of those that it can undo, and `hardware` of those
    that it can undo by the hardware that they are there for."""

    status: Status
    codecs: frozenset[int] = frozenset()
    slots: int = 0
    hardware: frozenset[int] = frozenset()
    resident: Hashes = NO_HASHES


def pack_hello(hello: Hello) -> bytes:
    """Encode a hello; raises `WireError` for a name or token out of bounds."""
    if not SERVICE_NAME.fullmatch(hello.service) or len(hello.token) > TOKEN_LIMIT:
        raise WireError("service name or token out of bounds")
    name = hello.service.encode()
    asked = ASKED.pack(*hello[2:])
    return HELLO.pack(MAGIC, VERSION, len(name), len(hello.token)) + asked + name + hello.token


def hello_body_size(header: bytes) -> int:
    """Tell how many bytes follow a hello's first eight, at most 304; raises `WireError`, `VersionError`."""
    check_preamble(header)
    *_, name_size, token_size = HELLO.unpack(header)
    if not 1 <= name_size <= SERVICE_LIMIT or token_size > TOKEN_LIMIT:
        raise WireError("hello out of bounds")
    return ASKED.size + int(name_size + token_size)


def unpack_hello(header: bytes, body: bytes) -> Hello:
    """Decode a hello from its first eight bytes and the `hello_body_size` ones after; raises `WireError`."""
    if len(body) != hello_body_size(header):
        raise WireError("hello truncated")
    carriage, *asked = ASKED.unpack_from(body)
    token_at = ASKED.size + header[5]
    name = body[ASKED.size : token_at].decode("ascii", "replace")
    if not SERVICE_NAME.fullmatch(name):
        raise WireError("service name out of bounds")
    if carriage not in set(Carriage):
        raise WireError("unknown carriage")
    return Hello(name, body[token_at:], Carriage(carriage), *asked)


def pack_reply(reply: Reply) -> bytes:
    """Encode a reply."""
    codecs, hardware = (sum(1 << number for number in numbers) for numbers in (reply.codecs, reply.hardware))
    fixed = REPLY.pack(MAGIC, VERSION, reply.status, codecs, hardware, reply.slots, reply.resident.pages)
    return fixed + (reply.resident.key + reply.resident.digests if reply.resident.pages else b"")


def reply_body_size(header: bytes) -> int:
    """Tell how many bytes follow a reply's first eighteen; raises `WireError`, `VersionError`."""
    check_preamble(header)
    *_, count = REPLY.unpack(header)
    if count > RESIDENT_LIMIT:
        raise WireError("reply out of bounds")
    return KEY_BYTES + int(count) * DIGEST_BYTES if count else 0


def unpack_reply(header: bytes, body: bytes = b"") -> Reply:
    """Decode a reply from its first eighteen bytes and the `reply_body_size` ones after; raises `WireError`."""
    if len(body) != reply_body_size(header):
        raise WireError("reply truncated")
    *_, status, codecs, hardware, slots, _ = REPLY.unpack(header)
    try:
        found = Status(status)
    except ValueError:
        raise WireError(f"unknown status {status}") from None
    return Reply(found, _numbers(codecs), slots, _numbers(hardware), Hashes(body[:KEY_BYTES], body[KEY_BYTES:]))


def _numbers(bits: int) -> frozenset[int]:
    return frozenset(number for number in range(16) if bits >> number & 1)


def check_preamble(start: bytes) -> None:
    """Tell by its first `PREAMBLE_BYTES` whether a hello or a reply is ours; raises `WireError`, `VersionError`."""
    if not start.startswith(MAGIC):
        raise WireError("not a vferry gateway")
    version = start[len(MAGIC)]
    if version != VERSION:
        raise VersionError(f"the other gateway speaks version {version} of the protocol, not {VERSION}")
