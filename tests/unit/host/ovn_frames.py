"""What guests send each other in the tests with OVN: each frame ends with a mark that no other has."""

import struct
import time
from collections.abc import Iterable, Iterator
from itertools import count

from ovn_chassis import Guest, Logical

from vferry.host.announcement import BROADCAST

NOT_S = 0.3
"""For how long nothing must come."""
TRIES = 20
OUTGOING = 4
UDP, GENEVE, VXLAN, ETHERNET = 17, 6081, 4789, 0x6558

_number = count(1)


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def mark() -> bytes:
    return b"mark" + next(_number).to_bytes(4, "big")


def datagram(to: Logical, of: Logical) -> bytes:
    """A datagram of UDP."""
    return octets(to.mac) + octets(of.mac) + b"\x08\x00" + _udp(to.address, of.address, 9, bytes(10) + mark())


def arp(to: Logical, of: Logical, *, reply: bool) -> bytes:
    """Says that the sender's address is at its MAC: an answer, or by asking everybody."""
    ends = octets(of.mac) + _ip(of.address) + octets(to.mac) + _ip(to.address)
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2 if reply else 1) + ends
    return (octets(to.mac) if reply else BROADCAST) + octets(of.mac) + b"\x08\x06" + body + bytes(10) + mark()


def tagged(frame: bytes, *vlans: int) -> bytes:
    """The same in VLANs, the outer one first."""
    return frame[:12] + b"".join(struct.pack("!HH", 0x8100, vlan) for vlan in vlans) + frame[12:]


def tunnelled(frame: bytes, network: int, ports: tuple[int, int], to: str, of: Logical) -> tuple[bytes, bytes]:
    """The same as a chassis sends it to another, in Geneve and in VXLAN, with the keys of the ports, in and out.

    Geneve has them in an option of OVN's, VXLAN that of the port out beside the network's.
    """
    option = struct.pack("!HBBHH", 0x0102, 0x80, 1, *ports)
    geneve = struct.pack("!BBHI", len(option) // 4, 0x40, ETHERNET, network << 8) + option
    vxlan = struct.pack("!II", 8 << 24, (ports[1] << 12 | network) << 8)
    in_geneve, in_vxlan = _udp(to, of.address, GENEVE, geneve + frame), _udp(to, of.address, VXLAN, vxlan + frame)
    outer = BROADCAST + octets(of.mac) + b"\x08\x00"
    return outer + in_geneve, outer + in_vxlan


def reached(frames: Iterable[bytes], of: Guest, *to: Guest) -> list[Guest]:
    """Whom anything reaches of what a guest sends."""
    marks = _send(frames, of, *to)
    ends = time.monotonic() + NOT_S
    return [each for each in to if any(_coming(marks, each, ends))]


def received(frames: Iterable[bytes], of: Guest, to: Guest) -> list[bytes]:
    """What comes to one of what a guest sends, as it comes: also what is in another frame."""
    marks = _send(frames, of, to)
    return list(_coming(marks, to, time.monotonic() + NOT_S))


def _send(frames: Iterable[bytes], of: Guest, *to: Guest) -> set[bytes]:
    """Answers their marks."""
    for each in to:
        assert each.wire, "who is not listening hears nothing"
    marks = set()
    for frame in frames:
        of.wire.send(frame)
        marks.add(frame[-8:])
    return marks


def arrives(frames: Iterable[bytes], of: Guest, to: Guest, *others: Guest) -> bool:
    """Whether anything reaches a guest of what another one sends, in one of several tries, and nobody else in any."""
    frames = list(frames)
    others = tuple(each for each in others if each is not to)
    for _ in range(TRIES):
        if found := reached(frames, of, to, *others):
            return found == [to]
    return False


def _coming(marks: set[bytes], to: Guest, ends: float) -> Iterator[bytes]:
    while True:
        to.wire.settimeout(max(0.001, ends - time.monotonic()))
        try:
            got, place = to.wire.recvfrom(2000)
        except TimeoutError:
            return
        if place[2] != OUTGOING and any(each in got for each in marks):
            yield got


def _udp(to: str, of: str, port: int, payload: bytes) -> bytes:
    """With IPv4's header, and without UDP's checksum, which may be left out."""
    return ipv4(to, of, UDP, struct.pack("!HHHH", port, port, 8 + len(payload), 0) + payload)


def ipv4(to: str, of: str, protocol: int, message: bytes) -> bytes:
    """A packet."""
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0, 64, protocol, 0) + _ip(of) + _ip(to)
    total = sum(struct.unpack("!10H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", ~total & 0xFFFF) + header[12:] + message


def _ip(address: str) -> bytes:
    return bytes(int(each) for each in address.split("."))
