"""A virtio NIC that this process drives by itself, and so knows when a packet has come.

It has split virtqueues (virtio 1.2, section 2.7), which it polls, one each way. Where they are is told to what is on
the other side in the words of vhost: to a switch over a socket (docs/interop/vhost-user.rst in QEMU's tree), or to the
kernel (its linux/vhost.h and linux/if_tun.h).
"""

import ctypes
import fcntl
import mmap
import os
import socket
import struct
from abc import abstractmethod
from typing import NamedTuple

from vferry.trial.ends import End
from vferry.trial.started import Started

RECEIVE, SEND = 0, 1
SLOTS, SLOT = 16, 2048
QUEUE, DESCRIPTORS, AVAILABLE, USED = 4096, 0, 1024, 2048
"""Octets from a queue to the next, and to its parts from where it begins."""
BUFFERS = 2 * QUEUE
MEMORY = BUFFERS + 2 * SLOTS * SLOT
WRITABLE, NO_INTERRUPT = 2, 1
VERSION_1 = 1 << 32
"""The only feature, by which each packet has a header of so many octets: zeroes, where nothing is left to a NIC."""
HEADER = 12

TUN = "/dev/net/tun"
TAP, NO_PACKET_INFORMATION, WITH_HEADER = 0x0002, 0x1000, 0x4000
SET_TAP, SET_HEADER, SET_BACKEND = 0x400454CA, 0x400454D8, 0x4008AF30


class Request(NamedTuple):
    """What vhost is asked for: over a socket, and of the kernel."""

    number: int
    ioctl: int


SET_FEATURES, SET_OWNER, SET_MEMORY = Request(2, 0x4008AF00), Request(3, 0xAF01), Request(5, 0x4008AF03)
SET_SIZE, SET_ADDRESSES, SET_BASE = Request(8, 0x4008AF10), Request(9, 0x4028AF11), Request(10, 0x4008AF12)
SET_KICK, SET_CALL = Request(12, 0x4008AF20), Request(13, 0x4008AF21)


class Vhost(Started):
    """Who takes what is sent, and brings what is received."""

    @abstractmethod
    def tell(self, request: Request, body: bytes, file: int | None = None) -> None:
        """Asks for something; `file` is what it is about. OSError."""

    @abstractmethod
    def give(self, request: Request, queue: int, file: int) -> None:
        """Gives a queue an eventfd. OSError."""

    def begin(self) -> None:
        """All has been said. OSError."""

    def wake(self) -> None:
        """There is something to be sent."""


class Peer(Vhost):
    """A switch that comes to a socket, and polls. OSError where none comes in time."""

    def __init__(self, end: End, patience_s: float) -> None:
        super().__init__()
        self._path, self._patience_s = end.path, patience_s

    def _start(self) -> None:
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.settimeout(self._patience_s)
            listening.bind(str(self._path))
            listening.listen()
            self._wire = self._stack.enter_context(listening.accept()[0])

    def tell(self, request: Request, body: bytes, file: int | None = None) -> None:
        message = struct.pack("<III", request.number, 1, len(body)) + body
        socket.send_fds(self._wire, [message], [] if file is None else [file])

    def give(self, request: Request, queue: int, file: int) -> None:
        self.tell(request, struct.pack("<Q", queue), file)


class Kernel(Vhost):
    """vhost-net, and a tap."""

    def __init__(self, end: End, kick: int) -> None:
        super().__init__()
        self._end, self._kick = end, kick

    def _start(self) -> None:
        self._vhost, self._tap = self._opened(str(self._end.path)), self._opened(TUN)
        flags = TAP | NO_PACKET_INFORMATION | WITH_HEADER
        fcntl.ioctl(self._tap, SET_TAP, struct.pack("16sH22x", self._end.tap.encode(), flags))
        fcntl.ioctl(self._tap, SET_HEADER, struct.pack("i", HEADER))

    def tell(self, request: Request, body: bytes, file: int | None = None) -> None:
        fcntl.ioctl(self._vhost, request.ioctl, body)

    def give(self, request: Request, queue: int, file: int) -> None:
        fcntl.ioctl(self._vhost, request.ioctl, struct.pack("<Ii", queue, file))

    def begin(self) -> None:
        for queue in (RECEIVE, SEND):
            fcntl.ioctl(self._vhost, SET_BACKEND, struct.pack("<Ii", queue, self._tap))

    def wake(self) -> None:
        os.eventfd_write(self._kick, 1)

    def _opened(self, path: str) -> int:
        file = os.open(path, os.O_RDWR)
        self._stack.callback(os.close, file)
        return file


class Queue:
    """A virtqueue: descriptors, which each have a buffer of their own, are given to the other side, and come back."""

    def __init__(self, memory: memoryview, number: int) -> None:
        flags = WRITABLE if number == RECEIVE else 0
        begin, first = number * QUEUE, BUFFERS + number * SLOTS * SLOT
        self.buffers = [memory[at : at + SLOT] for at in range(first, first + SLOTS * SLOT, SLOT)]
        for slot in range(SLOTS):
            where = begin + DESCRIPTORS + 16 * slot
            struct.pack_into("<QIHH", memory, where, first + slot * SLOT, SLOT, flags, 0)
        self._lengths = memory[begin + DESCRIPTORS : begin + DESCRIPTORS + 16 * SLOTS].cast("I")
        self._given = memory[begin + AVAILABLE : begin + USED].cast("H")
        self._used = memory[begin + USED : begin + QUEUE].cast("H")
        self._given[0] = NO_INTERRUPT
        self._count, self._back = 0, 0

    def give(self, descriptor: int, length: int = SLOT) -> None:
        self._lengths[4 * descriptor + 2] = length
        self._given[2 + self._count % SLOTS] = descriptor
        self._count += 1
        # It must be seen after all that was written before, as it is on processors that keep the order of stores.
        self._given[1] = self._count & 0xFFFF

    def back(self) -> int | None:
        """The next descriptor that has come back, if one has."""
        if self._used[1] == self._back & 0xFFFF:
            return None
        descriptor = self._used[2 + 4 * (self._back % SLOTS)]
        self._back += 1
        return descriptor


class VirtioNic(Started):
    """The NIC at an end. OSError where vhost refuses something, or no switch comes within `patience_s`."""

    def __init__(self, end: End, patience_s: float) -> None:
        super().__init__()
        self._end, self._patience_s = end, patience_s

    def send(self, frame: bytes) -> None:
        """Hands a frame over; the one before has come by now, or is lost."""
        self._sending.buffers[0][HEADER : HEADER + len(frame)] = frame
        self._sending.give(0, HEADER + len(frame))
        self._vhost.wake()

    def receive(self) -> memoryview | None:
        """What has come, if anything has: it is there until the next is received."""
        descriptor = self._receiving.back()
        if descriptor is None:
            return None
        self._receiving.give(descriptor)
        return self._receiving.buffers[descriptor][HEADER:]

    def _start(self) -> None:
        file, call = self._kept(os.memfd_create("nic")), self._kept(os.eventfd(0))
        kicks = [self._kept(os.eventfd(0)) for _ in (RECEIVE, SEND)]
        os.ftruncate(file, MEMORY)
        mapped = mmap.mmap(file, MEMORY)
        self._receiving, self._sending = (Queue(memoryview(mapped), number) for number in (RECEIVE, SEND))
        for descriptor in range(SLOTS):
            self._receiving.give(descriptor)
        vhost = Kernel(self._end, kicks[SEND]) if self._end.tap else Peer(self._end, self._patience_s)
        self._vhost = self._stack.enter_context(vhost)
        vhost.tell(SET_OWNER, b"")
        vhost.tell(SET_FEATURES, struct.pack("<Q", VERSION_1))
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        vhost.tell(SET_MEMORY, struct.pack("<IIQQQQ", 1, 0, 0, MEMORY, address, 0), file)
        for queue in (RECEIVE, SEND):
            begin = address + queue * QUEUE
            vhost.tell(SET_SIZE, struct.pack("<II", queue, SLOTS))
            vhost.tell(SET_BASE, struct.pack("<II", queue, 0))
            parts = (begin + DESCRIPTORS, begin + USED, begin + AVAILABLE)
            vhost.tell(SET_ADDRESSES, struct.pack("<IIQQQQ", queue, 0, *parts, 0))
            vhost.give(SET_CALL, queue, call)
            vhost.give(SET_KICK, queue, kicks[queue])
        vhost.begin()

    def _kept(self, file: int) -> int:
        self._stack.callback(os.close, file)
        return file
