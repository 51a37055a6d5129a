"""The frames that say where a NIC is: reverse ARP, gratuitous ARP, unsolicited neighbour advertisement. Pure."""

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

BROADCAST = b"\xff" * 6
ALL_NODES_MAC = bytes.fromhex("333300000001")
ALL_NODES = IPv6Address("ff02::1")
ARP, RARP, IPV6, VLAN = 0x0806, 0x8035, 0x86DD, 0x8100
REQUEST, REQUEST_REVERSE = 1, 3
ICMPV6, ADVERTISEMENT, TARGET_LINK_ADDRESS = 58, 136, 2
ROUTER, OVERRIDE = 0x80000000, 0x20000000
LEAST = 60
"""Octets of the shortest frame, without its checksum."""


def rarp(mac: str, vlan: int = 0) -> bytes:
    """A NIC that asks for its own address (RFC 903): all that a switch needs to learn its port, as QEMU sends it."""
    hardware = octets(mac)
    return _frame(BROADCAST, hardware, RARP, _arp(REQUEST_REVERSE, hardware, bytes(4), hardware, bytes(4)), vlan)


def gratuitous_arp(mac: str, address: str, vlan: int = 0) -> bytes:
    """An ARP announcement (RFC 5227, section 2.3): a request for an IPv4 address, from the one who has it."""
    hardware, own = octets(mac), IPv4Address(address).packed
    return _frame(BROADCAST, hardware, ARP, _arp(REQUEST, hardware, own, bytes(6), own), vlan)


def neighbour_advertisement(mac: str, address: str, vlan: int = 0, *, router: bool = False) -> bytes:
    """An unsolicited neighbour advertisement to all nodes (RFC 4861, section 7.2.6) for an IPv6 address.

    `router` as the guest would say it: neighbours cease to send by one that says no.
    """
    hardware, own = octets(mac), IPv6Address(address)
    flags = OVERRIDE | (ROUTER if router else 0)
    option = struct.pack("!BB6s", TARGET_LINK_ADDRESS, 1, hardware)
    body = struct.pack("!I16s", flags, own.packed) + option
    length = 4 + len(body)
    pseudo = struct.pack("!16s16sI3xB", own.packed, ALL_NODES.packed, length, ICMPV6)
    total = checksum(pseudo + struct.pack("!BBH", ADVERTISEMENT, 0, 0) + body)
    header = struct.pack("!IHBB16s16s", 6 << 28, length, ICMPV6, 255, own.packed, ALL_NODES.packed)
    message = struct.pack("!BBH", ADVERTISEMENT, 0, total) + body
    return _frame(ALL_NODES_MAC, hardware, IPV6, header + message, vlan)


def of_address(mac: str, address: str, vlan: int = 0, *, router: bool = False) -> bytes:
    """The announcement of an address of either family. ValueError where it is none."""
    if isinstance(ip_address(address), IPv4Address):
        return gratuitous_arp(mac, address, vlan)
    return neighbour_advertisement(mac, address, vlan, router=router)


def _arp(operation: int, sender: bytes, sender_ip: bytes, target: bytes, target_ip: bytes) -> bytes:
    return struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, sender, sender_ip, target, target_ip)


def _frame(destination: bytes, source: bytes, kind: int, payload: bytes, vlan: int) -> bytes:
    tag = struct.pack("!HH", VLAN, vlan) if vlan else b""
    return (destination + source + tag + struct.pack("!H", kind) + payload).ljust(LEAST, b"\0")


def octets(mac: str) -> bytes:
    """A MAC as it is in a frame. ValueError for anything else."""
    found = bytes.fromhex(mac.replace(":", ""))
    if len(found) != 6:
        raise ValueError(f"not a MAC: {mac!r}")
    return found


def checksum(data: bytes) -> int:
    """The Internet's (RFC 1071); `data` has an even length."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
