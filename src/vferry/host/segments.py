"""Frames of a guest's connections: those by which a switch gets to know one, and what a guest says of one. Pure."""

import struct
from ipaddress import ip_address
from typing import Literal

from msgspec import Struct

from vferry.host.announcement import IPV6, checksum
from vferry.model.connections import PortConnection, Way

IPV4 = 0x0800
TCP: Literal[6] = 6
UDP: Literal[17] = 17
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
TIMESTAMPS = struct.Struct("!BBBBII")
ETHERNET, IPV4_HEADER, IPV6_HEADER, TCP_HEADER = 14, 20, 40, 20
WINDOW = 0xFFFF
STRANGER = bytes.fromhex("020000000001")
"""Locally administered: a frame that is made here is nobody's."""


class Segment(Struct, frozen=True, kw_only=True):
    """What a TCP segment says; `length` is that of its data, in octets."""

    way: Way
    seq: int
    ack: int
    flags: int
    length: int


def backwards(way: Way) -> Way:
    """The other direction of a connection."""
    exchanged = (way.ports[1], way.ports[0]) if way.ports else None
    return Way(source=way.destination, destination=way.source, ports=exchanged)


def answers(connection: PortConnection) -> Way:
    """The other direction of a connection, as who serves it sends."""
    return backwards(connection.served or connection.way)


def tcp(way: Way, seq: int, ack: int, *, to: bytes = STRANGER, timestamps: tuple[int, int] | None = None) -> bytes:
    """A segment that acknowledges, without data (RFC 9293); with `timestamps`, the option of RFC 7323 is in it."""
    source, destination = ports(way)
    options = b"" if timestamps is None else TIMESTAMPS.pack(1, 1, 8, 10, *timestamps)
    words = (TCP_HEADER + len(options)) // 4
    numbers = struct.pack("!HHIIBBH", source, destination, seq % 2**32, ack % 2**32, words << 4, ACK, WINDOW)
    length = TCP_HEADER + len(options)
    total = checksum(_pseudo(way, TCP, length) + numbers + bytes(4) + options)
    return _frame(way, TCP, numbers + struct.pack("!HH", total, 0) + options, to)


def udp(way: Way) -> bytes:
    """A datagram without data (RFC 768)."""
    header = struct.pack("!HHH", *ports(way), 8)
    # Of a sum that is 0 the other form goes: 0 says that there is none.
    total = checksum(_pseudo(way, UDP, 8) + header + bytes(2)) or 0xFFFF
    return _frame(way, UDP, header + struct.pack("!H", total), STRANGER)


def read_tcp(frame: bytes) -> Segment | None:
    """What a frame says, if it is a whole TCP segment; None for any other."""
    if len(frame) < ETHERNET + IPV4_HEADER:
        return None
    (kind,) = struct.unpack_from("!H", frame, 12)
    found = _read_ipv4(frame) if kind == IPV4 else _read_ipv6(frame) if kind == IPV6 else None
    if found is None:
        return None
    source, destination, segment = found
    if len(segment) < TCP_HEADER:
        return None
    ports_source, ports_destination, seq, ack, words, flags = struct.unpack_from("!HHIIBB", segment)
    length = len(segment) - (words >> 4) * 4
    if length < 0:
        return None
    way = Way(source=source, destination=destination, ports=(ports_source, ports_destination))
    return Segment(way=way, seq=seq, ack=ack, flags=flags, length=length)


def _read_ipv4(frame: bytes) -> tuple[str, str, bytes] | None:
    packet = frame[ETHERNET:]
    (total,), (fragment,) = struct.unpack_from("!H", packet, 2), struct.unpack_from("!H", packet, 6)
    header = (packet[0] & 0x0F) * 4
    if packet[0] >> 4 != 4 or packet[9] != TCP or fragment & 0x3FFF or not IPV4_HEADER <= header <= total:
        return None
    if total > len(packet):
        return None
    return str(ip_address(packet[12:16])), str(ip_address(packet[16:20])), packet[header:total]


def _read_ipv6(frame: bytes) -> tuple[str, str, bytes] | None:
    packet = frame[ETHERNET:]
    if len(packet) < IPV6_HEADER or packet[6] != TCP:
        return None
    (length,) = struct.unpack_from("!H", packet, 4)
    if IPV6_HEADER + length > len(packet):
        return None
    source, destination = (str(ip_address(packet[at : at + 16])) for at in (8, 24))
    return source, destination, packet[IPV6_HEADER : IPV6_HEADER + length]


def ports(way: Way) -> tuple[int, int]:
    """Those that it must have."""
    if way.ports is None:
        raise ValueError(f"no ports: {way}")
    return way.ports


def _addresses(way: Way) -> tuple[bytes, bytes]:
    """Both of one family, packed. ValueError where they are not."""
    source, destination = ip_address(way.source), ip_address(way.destination)
    if source.version != destination.version:
        raise ValueError(f"not of one family: {way}")
    return source.packed, destination.packed


def _pseudo(way: Way, protocol: int, length: int) -> bytes:
    source, destination = _addresses(way)
    return source + destination + struct.pack("!II", length, protocol)


def _frame(way: Way, protocol: int, payload: bytes, to: bytes) -> bytes:
    source, destination = _addresses(way)
    if len(source) == 16:
        header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + source + destination
        return to + STRANGER + struct.pack("!H", IPV6) + header + payload
    total = IPV4_HEADER + len(payload)
    header = struct.pack("!BBHHHBB", 0x45, 0, total, 0, 0, 64, protocol)
    summed = checksum(header + bytes(2) + source + destination)
    return to + STRANGER + struct.pack("!H", IPV4) + header + struct.pack("!H", summed) + source + destination + payload
