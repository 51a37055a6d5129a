"""Probes as bytes: ICMP echo with a sequence number of 64 bits, and ARP."""

import struct
from typing import NamedTuple

# Session and sequence number, padded to ping's usual 56 bytes so that no Ethernet frame needs padding.
PAYLOAD = struct.Struct("!8sQ40x")
HEADER = struct.Struct("!BBHHH")
ARP = struct.Struct("!HHBBH6s4s6s4s")
ARP_REQUEST, ARP_REPLY = 1, 2
ETHERTYPE_ARP = 0x0806


class Kind(NamedTuple):
    """What tells ICMP from ICMPv6: the types of request and reply."""

    request: int
    reply: int


V4 = Kind(8, 0)
V6 = Kind(128, 129)


def checksum(data: bytes) -> int:
    """The Internet checksum of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo(kind: Kind, ident: int, session: bytes, sequence: int) -> bytes:
    """An echo request. The kernel fills in the checksum of ICMPv6, which covers addresses we do not know."""
    payload = PAYLOAD.pack(session, sequence)
    plain = HEADER.pack(kind.request, 0, 0, ident, sequence & 0xFFFF) + payload
    if kind is V6:
        return plain
    return HEADER.pack(kind.request, 0, checksum(plain), ident, sequence & 0xFFFF) + payload


def answered(packet: bytes, kind: Kind, session: bytes) -> int | None:
    """The sequence number that a received packet answers, or None if it is none of this session's.

    ICMP on a raw socket comes with its IPv4 header, ICMPv6 without one.
    """
    start = (packet[0] & 0xF) * 4 if kind is V4 and packet else 0
    if len(packet) < start + HEADER.size + PAYLOAD.size or packet[start] != kind.reply:
        return None
    got: bytes
    sequence: int
    got, sequence = PAYLOAD.unpack_from(packet, start + HEADER.size)
    return sequence if got == session else None


def arp_probe(hardware: bytes, target: bytes) -> bytes:
    """An ARP probe (RFC 5227) for the IPv4 address `target`, from the MAC address `hardware`.

    The sender's address is left empty: so the target's neighbour table stays as it is, and its reply
    cannot be taken for one to the kernel's own requests.
    """
    return ARP.pack(1, 0x0800, 6, 4, ARP_REQUEST, hardware, bytes(4), bytes(6), target)


def arp_answers(packet: bytes, hardware: bytes, target: bytes) -> bool:
    """Whether a received ARP packet is the reply of `target` to a probe from `hardware`."""
    if len(packet) < ARP.size:
        return False
    *_, operation, _, sender, to_hardware, to = ARP.unpack_from(packet)
    return bool(operation == ARP_REPLY and sender == target and to_hardware == hardware and to == bytes(4))
