"""The sockets probes travel on. A `Line` hides whether they are ICMP, ICMPv6 or ARP."""

import contextlib
import ctypes
import fcntl
import ipaddress
import os
import secrets
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vferry.probe import packets

SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
SO_ATTACH_FILTER = 26
CLONE_NEWNET = 0x40000000
SIOCGIFADDR = 0x8915
SIOCGIFHWADDR = 0x8927
RECEIVE_BUFFER = 8 << 20
TIMESPEC = struct.Struct("@ll")

# What `Line.match` says instead of a sequence number.
NOT_OURS, NEWEST = -1, -2

# Classic BPF, as (code, jump if true, jump if false, constant).
Filter = list[tuple[int, int, int, int]]
LOAD_BYTE, LOAD_HALF, LOAD_BYTE_X, LOAD_HALF_X, LOAD_IP_LENGTH = 0x30, 0x28, 0x50, 0x48, 0xB1
EQUAL, RETURN = 0x15, 0x06


def enter_namespace(name: str) -> None:
    """Moves this process into the network namespace that `ip netns` calls `name`. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns exists only from Python 3.12 on
    with Path("/run/netns", name).open("rb") as handle:
        if libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


class Line:
    """Sends probes to one address and yields their answers with the kernel's time of arrival."""

    def __init__(self, sock: socket.socket, only: Filter) -> None:
        sock.settimeout(0)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        _attach(sock, only)
        self._socket = sock

    def send(self, sequence: int) -> None:
        """Sends a probe without waiting. Raises OSError if the kernel refuses it."""
        raise NotImplementedError

    def match(self, packet: bytes) -> int:
        """The sequence number a packet answers, `NEWEST` if it says only that one is answered, or `NOT_OURS`."""
        raise NotImplementedError

    def answers(self) -> Iterator[tuple[int, int]]:
        """Yields (sequence number or `NEWEST`, CLOCK_MONOTONIC ns of arrival) of all that has come in."""
        offset = wall_offset()
        while True:
            try:
                packet, extra, _, _ = self._socket.recvmsg(512, 64)
            except BlockingIOError:
                return
            except OSError:
                # An error the network reported for an earlier probe: that one is simply not answered.
                continue
            sequence = self.match(packet)
            if sequence != NOT_OURS:
                yield sequence, _stamp(extra) - offset

    def close(self) -> None:
        self._socket.close()


class EchoLine(Line):
    """ICMP or ICMPv6 echo on a raw socket, which is not connected: so a reported error blocks no probe."""

    def __init__(self, address: str) -> None:
        family, _, _, _, to = socket.getaddrinfo(address, 0, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
        self._to: tuple[Any, ...] = to
        self._kind = packets.V6 if family == socket.AF_INET6 else packets.V4
        self._ident = secrets.randbelow(1 << 16)
        self._session = secrets.token_bytes(8)
        protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
        super().__init__(socket.socket(family, socket.SOCK_RAW, protocol), self._filter())

    def _filter(self) -> Filter:
        tail: Filter = [(EQUAL, 0, 1, self._ident), (RETURN, 0, 0, 0xFFFF), (RETURN, 0, 0, 0)]
        if self._kind is packets.V6:
            return [(LOAD_BYTE, 0, 0, 0), (EQUAL, 0, 3, self._kind.reply), (LOAD_HALF, 0, 0, 4), *tail]
        head: Filter = [(LOAD_IP_LENGTH, 0, 0, 0), (LOAD_BYTE_X, 0, 0, 0), (EQUAL, 0, 3, self._kind.reply)]
        return [*head, (LOAD_HALF_X, 0, 0, 4), *tail]

    def send(self, sequence: int) -> None:
        self._socket.sendto(packets.echo(self._kind, self._ident, self._session, sequence), self._to)

    def match(self, packet: bytes) -> int:
        sequence = packets.answered(packet, self._kind, self._session)
        return NOT_OURS if sequence is None else sequence


class ArpLine(Line):
    """ARP probes. A reply carries no number: it answers the newest probe before it that has no answer yet."""

    def __init__(self, address: str) -> None:
        self._target = ipaddress.IPv4Address(address).packed
        interface = _interface_to(address)
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(packets.ETHERTYPE_ARP))
        sock.bind((interface, packets.ETHERTYPE_ARP))
        self._hardware: bytes = sock.getsockname()[4]
        self._to = (interface, packets.ETHERTYPE_ARP, 0, 0, b"\xff" * 6)
        self._probe = packets.arp_probe(self._hardware, self._target)
        reply: Filter = [(LOAD_HALF, 0, 0, 6), (EQUAL, 0, 1, packets.ARP_REPLY)]
        super().__init__(sock, [*reply, (RETURN, 0, 0, 0xFFFF), (RETURN, 0, 0, 0)])

    def send(self, sequence: int) -> None:
        self._socket.sendto(self._probe, self._to)

    def match(self, packet: bytes) -> int:
        return NEWEST if packets.arp_answers(packet, self._hardware, self._target) else NOT_OURS


def open_line(method: str, address: str) -> Line:
    """Opens the line of a method, ``icmp`` or ``arp``. Raises OSError or ValueError."""
    return ArpLine(address) if method == "arp" else EchoLine(address)


def _attach(sock: socket.socket, only: Filter) -> None:
    """Lets the kernel drop what is none of ours before it wakes this process."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in only))
    program = struct.pack("@HP", len(only), ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def wall_offset() -> int:
    """The wall clock less CLOCK_MONOTONIC in ns, taken between two readings that are close to each other."""
    best, offset = 1 << 62, 0
    for _ in range(3):
        before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        if after - before < best:
            best, offset = after - before, wall - (before + after) // 2
        if best < 20_000:
            break
    return offset


def _stamp(extra: list[tuple[int, int, bytes]]) -> int:
    """The kernel's time stamp of arrival by the wall clock, in ns; now if it gave none."""
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= TIMESPEC.size:
            seconds, nanoseconds = TIMESPEC.unpack_from(data)
            return int(seconds * 10**9 + nanoseconds)
    return time.time_ns()


def _interface_to(address: str) -> str:
    """The interface whose address the kernel would send from to reach `address`. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, 9))
        ours = socket.inet_aton(sock.getsockname()[0])
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(sock.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if answer[20:24] == ours:
                    return name
    raise OSError(f"no interface of this network reaches {address} directly")
