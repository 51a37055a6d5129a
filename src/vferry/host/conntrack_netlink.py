"""The kernel's table of connections (ctnetlink): its messages as bytes, and a socket for them.

The messages are written here and not by pyroute2, which takes some twenty times as long (to read one 0.43 ms, to
write it 0.54): there may be tens of thousands, and the guest does not wait.
"""

import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from vferry.host.sriov_netlink import (
    ANSWER_TIMEOUT_S,
    HEADER,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    read_error,
    split,
)
from vferry.model.connections import Connection, Sctp, Tcp, Way

NETLINK_NETFILTER, SOL_NETLINK, NETLINK_CAP_ACK = 12, 270, 10
CT_NEW, CT_GET = 0x100, 0x101
FAMILY = struct.Struct("=BBH")
ATTRIBUTE = struct.Struct("=HH")
NESTED, KIND = 0x8000, 0x3FFF
ANSWER_LIMIT = 1 << 16
"""Bytes: the kernel gives at most half of it at a time."""

TUPLE_ORIG, TUPLE_REPLY, STATUS, PROTOINFO, TIMEOUT, MARK, ZONE = 1, 2, 3, 4, 7, 8, 18
SEQ_ADJ = frozenset({15, 16})
TUPLE_IP, TUPLE_PROTO, TUPLE_ZONE = 1, 2, 3
ADDRESSES = {socket.AF_INET: (1, 2), socket.AF_INET6: (3, 4)}
PROTO_NUM, PORTS = 1, (2, 3)
ICMP = {socket.IPPROTO_ICMP: (4, 5, 6), socket.IPPROTO_ICMPV6: (7, 8, 9)}
PROTOINFO_TCP, PROTOINFO_SCTP = 1, 3

SEEN_REPLY, ASSURED, CONFIRMED, NAT = 0x2, 0x4, 0x8, 0x30
LIBERAL = 0x08
TCP_FLAGS = 0x07
"""Of a sender: window scaling, SACK, and that it closes first. The others are about windows, which do not go along."""


class Table:
    """The connections of this host's network namespace. The kernel's refusals are `OSError`, or an errno each."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.settimeout(ANSWER_TIMEOUT_S)
        # Answers without the request in them: else those to a packet of many requests do not fit its buffer.
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    def entries(self) -> Iterator[bytes]:
        """Every entry, as a message."""
        self._sequence += 1
        self._socket.send(_message(CT_GET, NLM_F_DUMP, self._sequence, socket.AF_UNSPEC, b""))
        while True:
            for kind, sequence, data in split(self._socket.recv(ANSWER_LIMIT)):
                if sequence != self._sequence:
                    continue
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    if error := read_error(data):
                        raise OSError(error, os.strerror(error))
                    return
                yield data

    def put(self, requests: Sequence["Put"]) -> list[int]:
        """Carries requests out back to back, in order, also when an earlier one is refused. The errno of each, or 0."""
        first = self._sequence + 1
        self._sequence += len(requests)
        messages = (
            _message(CT_NEW, NLM_F_ACK | flags, first + at, family, data)
            for at, (flags, family, data) in enumerate(requests)
        )
        self._socket.send(b"".join(messages))
        ends: dict[int, int] = {}
        while len(ends) < len(requests):
            for kind, sequence, data in split(self._socket.recv(ANSWER_LIMIT)):
                if kind == NLMSG_ERROR and sequence >= first:
                    ends[sequence] = read_error(data)
        return [ends[first + at] for at in range(len(requests))]


Put = tuple[int, int, bytes]
"""How an entry is put: the message's flags, its address family, its attributes."""


def create(connection: Connection, *, timeout: int) -> Put:
    """Makes an entry that lasts `timeout` seconds; EEXIST where there is one."""
    return NLM_F_CREATE | NLM_F_EXCL, *_entry(connection, timeout)


def update(connection: Connection) -> Put:
    """Makes an entry what the connection is, for the time that it has; ENOENT where there is none."""
    return 0, *_entry(connection, None)


def replace(connection: Connection) -> Put:
    """Makes an entry, or makes it what the connection is, for as long as it says."""
    return NLM_F_CREATE, *_entry(connection, connection.timeout)


def portable(message: bytes) -> bool:
    """Whether all that matters of an entry can be told: NAT, and a zone for one direction only, cannot."""
    found = _attributes(_body(message))
    status = _number(found.get(STATUS, b""))
    zones = any(TUPLE_ZONE in _attributes(found.get(kind, b"")) for kind in (TUPLE_ORIG, TUPLE_REPLY))
    return not (status & NAT or zones or SEQ_ADJ & found.keys())


def decode(message: bytes) -> Connection:
    """An entry of the table."""
    found = _attributes(_body(message))
    status = _number(found.get(STATUS, b""))
    protocol, original = _way(found[TUPLE_ORIG])
    _, reply = _way(found[TUPLE_REPLY])
    state = _attributes(found.get(PROTOINFO, b""))
    return Connection(
        protocol=protocol,
        original=original,
        reply=reply,
        seen_reply=bool(status & SEEN_REPLY),
        assured=bool(status & ASSURED),
        timeout=_number(found.get(TIMEOUT, b"")),
        zone=_number(found.get(ZONE, b"")),
        mark=_number(found.get(MARK, b"")),
        tcp=_tcp(_attributes(state[PROTOINFO_TCP])) if PROTOINFO_TCP in state else None,
        sctp=_sctp(_attributes(state[PROTOINFO_SCTP])) if PROTOINFO_SCTP in state else None,
    )


def _message(kind: int, flags: int, sequence: int, family: int, attributes: bytes) -> bytes:
    length = HEADER.size + FAMILY.size + len(attributes)
    return HEADER.pack(length, kind, NLM_F_REQUEST | flags, sequence, 0) + FAMILY.pack(family, 0, 0) + attributes


def _body(message: bytes) -> bytes:
    return message[HEADER.size + FAMILY.size :]


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < ATTRIBUTE.size:
            break
        found[kind & KIND] = data[at + ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def _number(data: bytes) -> int:
    """Numbers are in network byte order, whatever their size."""
    return int.from_bytes(data, "big")


def _way(data: bytes) -> tuple[int, Way]:
    """The protocol's number, and the direction."""
    found = _attributes(data)
    addresses, protocol = _attributes(found[TUPLE_IP]), _attributes(found[TUPLE_PROTO])
    family = socket.AF_INET if ADDRESSES[socket.AF_INET][0] in addresses else socket.AF_INET6
    source, destination = (socket.inet_ntop(family, addresses[kind]) for kind in ADDRESSES[family])
    number = _number(protocol[PROTO_NUM])
    kinds = ICMP.get(number, ())
    return number, Way(
        source=source,
        destination=destination,
        ports=(_number(protocol[PORTS[0]]), _number(protocol[PORTS[1]])) if PORTS[0] in protocol else None,
        icmp=_three([_number(protocol[kind]) for kind in kinds]) if kinds else None,
    )


def _three(values: list[int]) -> tuple[int, int, int]:
    return values[0], values[1], values[2]


def _tcp(found: Mapping[int, bytes]) -> Tcp:
    state, *scales = (_number(found.get(kind, b"")) for kind in (1, 2, 3))
    flags = [found.get(kind, b"\0")[0] & TCP_FLAGS for kind in (4, 5)]
    return Tcp(state=state, flags=(flags[0], flags[1]), scales=(scales[0], scales[1]))


def _sctp(found: Mapping[int, bytes]) -> Sctp:
    state, *tags = (_number(found.get(kind, b"")) for kind in (1, 2, 3))
    return Sctp(state=state, tags=(tags[0], tags[1]))


def _entry(connection: Connection, timeout: int | None) -> tuple[int, bytes]:
    """The family and the attributes. Raises `OSError` where the addresses are none, or of two families."""
    family = socket.AF_INET6 if ":" in connection.original.source else socket.AF_INET
    status = CONFIRMED | SEEN_REPLY * connection.seen_reply | ASSURED * connection.assured
    return family, b"".join(
        (
            _tuple(TUPLE_ORIG, family, connection.protocol, connection.original),
            _tuple(TUPLE_REPLY, family, connection.protocol, connection.reply),
            _plain(STATUS, status, 4),
            b"" if timeout is None else _plain(TIMEOUT, timeout, 4),
            _state(connection),
            _plain(MARK, connection.mark, 4),
            _plain(ZONE, connection.zone, 2) if connection.zone else b"",
        )
    )


def _tuple(kind: int, family: int, protocol: int, way: Way) -> bytes:
    addresses = zip(ADDRESSES[socket.AddressFamily(family)], (way.source, way.destination), strict=True)
    numbers = _plain(PROTO_NUM, protocol, 1)
    if way.ports is not None:
        numbers += _plain(PORTS[0], way.ports[0], 2) + _plain(PORTS[1], way.ports[1], 2)
    if way.icmp is not None and protocol in ICMP:
        kinds = zip(ICMP[protocol], way.icmp, (2, 1, 1), strict=True)
        numbers += b"".join(_plain(each, value, size) for each, value, size in kinds)
    packed = b"".join(_attribute(each, socket.inet_pton(family, address)) for each, address in addresses)
    return _nest(kind, _nest(TUPLE_IP, packed) + _nest(TUPLE_PROTO, numbers))


def _state(connection: Connection) -> bytes:
    if tcp := connection.tcp:
        flags = (bytes((each & TCP_FLAGS | LIBERAL, TCP_FLAGS | LIBERAL)) for each in tcp.flags)
        values = (_plain(1, tcp.state, 1), _plain(2, tcp.scales[0], 1), _plain(3, tcp.scales[1], 1))
        both = (_attribute(kind, each) for kind, each in zip((4, 5), flags, strict=True))
        return _nest(PROTOINFO, _nest(PROTOINFO_TCP, b"".join((*values, *both))))
    if sctp := connection.sctp:
        sctp_values = (_plain(1, sctp.state, 1), _plain(2, sctp.tags[0], 4), _plain(3, sctp.tags[1], 4))
        return _nest(PROTOINFO, _nest(PROTOINFO_SCTP, b"".join(sctp_values)))
    return b""


def _plain(kind: int, value: int, size: int) -> bytes:
    return _attribute(kind, value.to_bytes(size, "big"))


def _nest(kind: int, data: bytes) -> bytes:
    return _attribute(kind | NESTED, data)


def _attribute(kind: int, data: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(data), kind) + data + b"\0" * (-len(data) % 4)
