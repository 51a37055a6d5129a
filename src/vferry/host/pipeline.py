"""A bridge of Open vSwitch from within, as far as it is needed: frames into its tables and out of them, and flows.

Spoken as `openflow` does. What is here of Open vSwitch's own (`NX`) is in its include/openflow/nicira-ext.h and
lib/ofp-actions.c.
"""

import struct
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from msgspec import Struct

from vferry.host.openflow import (
    BARRIER_REPLY,
    BARRIER_REQUEST,
    ERROR,
    HEADER,
    HELLO,
    IN_PORT,
    NOT_BUFFERED,
    message,
    packet_out,
)
from vferry.host.openvswitch import TIMEOUT_S, RefusedError, connect
from vferry.host.segments import ports
from vferry.model.connections import Way

ECHO_REQUEST, ECHO_REPLY, EXPERIMENTER, SET_CONFIG, PACKET_IN, FLOW_MOD = 2, 3, 4, 9, 10, 14
PACKET_IN_HEAD, PACKET_IN_MATCH = struct.Struct("!IHBBQHH"), 16
NICIRA = 0x2320
SET_CONTROLLER_ID = 20
OURSELVES = 0xFFFFFFFD
"""The port that stands for whoever speaks OpenFlow."""
ANY, WHOLE = 0xFFFFFFFF, 0xFFFF
ADD, DELETE = 0, 3
APPLY_ACTIONS = 4
SET_FIELD, EXPERIMENTER_ACTION = 25, 0xFFFF
NX_CONTROLLER, NX_CT, NX_NAT = 20, 35, 36
NAT_DESTINATION = 2
NAT_IPV4, NAT_IPV6, NAT_PORT = 1, 4, 16
CT_COMMIT, CT_FORCE, NO_TABLE = 1, 2, 0xFF
EVERY_TABLE = 0xFF
CT_MARK, CT_LABEL = 0x0001D604, 0x0001D810
REASON_ACTION = 1
LIMIT = 1 << 16
"""Octets of a message: its length is of 16 bits."""


class PacketIn(Struct, frozen=True):
    """A frame that a flow has passed to us, and the cookie of that flow."""

    cookie: int
    frame: bytes


class Pipeline:
    """A connection to one bridge. `controller` is the number by which flows pass frames to it and to nobody else.

    `OSError` where nobody answers in time, `ValueError` for nonsense, `RefusedError` with OpenFlow's numbers.
    """

    def __init__(self, path: Path, controller: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._controller = controller
        self._clock = clock
        self._received = bytearray()
        self._unsent = bytearray()
        self._waiting: list[PacketIn] = []

    def __enter__(self) -> Self:
        self._wire = connect(self._path)
        try:
            self._send(HELLO)
            # A connection to this socket is passed nothing before it has said how long frames may be.
            self._send(SET_CONFIG, struct.pack("!HH", 0, WHOLE))
            self._send(EXPERIMENTER, struct.pack("!II6xH", NICIRA, SET_CONTROLLER_ID, self._controller))
            self.barrier()
        except BaseException:
            self._wire.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._wire.close()

    def put(self, frame: bytes, actions: bytes) -> None:
        """Has actions done on a frame of nobody's."""
        self._say(packet_out(OURSELVES, frame, actions))

    def let_in(self, port: int, frame: bytes) -> None:
        """Has a frame go through the tables as if it had come in by a port."""
        self._say(packet_out(port, frame))

    def add_flow(self, match: bytes, actions: bytes, *, cookie: int, priority: int, ends_after_s: int) -> None:
        """Adds a flow to the first table, which goes by itself, whatever becomes of us; with 0 it stays."""
        head = struct.pack("!QQBBHHHIIIH2x", cookie, 0, 0, ADD, 0, ends_after_s, priority, NOT_BUFFERED, ANY, ANY, 0)
        self._send(FLOW_MOD, head + match + struct.pack("!HH4x", APPLY_ACTIONS, 8 + len(actions)) + actions)

    def drop_flows(self, cookie: int, mask: int) -> None:
        """Takes the flows of the first table away whose cookie is this one where the mask has bits."""
        head = struct.pack("!QQBBHHHIIIH2x", cookie, mask, 0, DELETE, 0, 0, 0, NOT_BUFFERED, ANY, ANY, 0)
        self._send(FLOW_MOD, head + match_of(b""))

    def drop_flows_of(self, port: int, table: int = EVERY_TABLE) -> None:
        """Takes the flows of a table away, or of all, by which frames come in by a port, or go out by it."""
        for match, out in ((match_of(from_port(port)), ANY), (match_of(b""), port)):
            head = struct.pack("!QQBBHHHIIIH2x", 0, 0, table, DELETE, 0, 0, 0, NOT_BUFFERED, out, ANY, 0)
            self._send(FLOW_MOD, head + match)

    def barrier(self) -> None:
        """Waits until all is done that was asked for."""
        self._send(BARRIER_REQUEST)
        ends = self._clock() + TIMEOUT_S
        while True:
            kind, body = self._message(ends)
            if kind == BARRIER_REPLY:
                return
            self._take(kind, body)

    def passed(self, until: float) -> PacketIn | None:
        """The next frame that a flow has passed to us; None where there is none by a time of the clock."""
        while not self._waiting:
            try:
                kind, body = self._message(until)
            except TimeoutError:
                return None
            self._take(kind, body)
        return self._waiting.pop(0)

    def rest(self) -> list[PacketIn]:
        """What has been passed to us so far, and was not asked for yet."""
        found, self._waiting = self._waiting, []
        return found

    def _take(self, kind: int, body: bytes) -> None:
        if kind == ERROR:
            raise RefusedError(f"OpenFlow error {body[:4].hex()}")
        if kind == ECHO_REQUEST:
            self._send(ECHO_REPLY, body)
        if kind == PACKET_IN and (found := _packet_in(body)) is not None:
            self._waiting.append(found)

    def _send(self, kind: int, body: bytes = b"") -> None:
        self._say(message(kind, body))

    def _say(self, said: bytes) -> None:
        self._unsent += said
        if len(self._unsent) >= LIMIT:
            self._flush()

    def _flush(self) -> None:
        """What is asked for goes together, since there may be thousands, before an answer is waited for."""
        self._wire.settimeout(TIMEOUT_S)
        self._wire.sendall(self._unsent)
        self._unsent.clear()

    def _message(self, until: float) -> tuple[int, bytes]:
        while True:
            if len(self._received) >= HEADER.size:
                _, kind, length, _ = HEADER.unpack_from(self._received)
                if length < HEADER.size:
                    raise ValueError("an OpenFlow message without a length")
                if len(self._received) >= length:
                    body = bytes(self._received[HEADER.size : length])
                    del self._received[:length]
                    return kind, body
            self._flush()
            self._wire.settimeout(max(0.001, until - self._clock()))
            data = self._wire.recv(LIMIT)
            if not data:
                raise ConnectionResetError("the bridge has closed the connection")
            self._received += data


def from_port(port: int) -> bytes:
    """The field of a match: what comes in by a port."""
    return struct.pack("!II", IN_PORT, port)


def tcp_from(port: int, way: Way) -> bytes:
    """A match: what comes in by a port, of one direction of a TCP connection."""
    source, destination = ip_address(way.source), ip_address(way.destination)
    kind, (from_address, to_address) = (0x0800, (11, 12)) if source.version == 4 else (0x86DD, (26, 27))
    fields = (
        (0, struct.pack("!I", port)),
        (5, struct.pack("!H", kind)),
        (10, b"\x06"),
        (from_address, source.packed),
        (to_address, destination.packed),
        *((field, struct.pack("!H", port)) for field, port in zip((13, 14), ports(way), strict=True)),
    )
    return match_of(b"".join(struct.pack("!HBB", 0x8000, field << 1, len(value)) + value for field, value in fields))


def to_controller(controller: int) -> bytes:
    """An action: the whole frame to the connection of this number."""
    return nicira(NX_CONTROLLER, struct.pack("!HHBx", WHOLE, controller, REASON_ACTION))


def track(zone: int) -> bytes:
    """An action: the frame's connection in a zone sees it, if it is known there."""
    return nicira(NX_CT, struct.pack("!HIHB3xH", 0, 0, zone, NO_TABLE, 0))


def commit(zone: int, mark: int, labels: int, served: Way | None = None) -> bytes:
    """An action: the frame's connection is known in a zone from now on, this being the direction in which it began.

    It goes to where `served` goes, if that is said, and what is answered there comes from where it went.
    """
    fields = b"" if served is None else _turn(served)
    fields += set_field(CT_MARK, mark.to_bytes(4, "big")) + set_field(CT_LABEL, labels.to_bytes(16, "big"))
    return nicira(NX_CT, struct.pack("!HIHB3xH", CT_COMMIT | CT_FORCE, 0, zone, NO_TABLE, 0) + fields)


def _turn(to: Way) -> bytes:
    """Of a commit: its destination is another one."""
    address, (_, port) = ip_address(to.destination), ports(to)
    family = NAT_IPV4 if address.version == 4 else NAT_IPV6
    body = struct.pack("!2xHH", NAT_DESTINATION, family | NAT_PORT) + address.packed + struct.pack("!H", port)
    return nicira(NX_NAT, body + bytes(-(10 + len(body)) % 8))


def set_field(field: int, value: bytes) -> bytes:
    """An action: the frame's field, by its header in OXM, has a value."""
    length = 8 + len(value)
    return struct.pack("!HHI", SET_FIELD, length + -length % 8, field) + value + bytes(-length % 8)


def nicira(subtype: int, body: bytes) -> bytes:
    """An action of Open vSwitch's own."""
    return struct.pack("!HHIH", EXPERIMENTER_ACTION, 10 + len(body), NICIRA, subtype) + body


def match_of(fields: bytes) -> bytes:
    """A match by fields of OXM's; without any, all frames."""
    length = 4 + len(fields)
    return struct.pack("!HH", 1, length) + fields + bytes(-length % 8)


def _packet_in(body: bytes) -> PacketIn | None:
    """None for what is no whole frame, and for what no flow has passed."""
    if len(body) < PACKET_IN_HEAD.size:
        return None
    _, total, reason, _, cookie, _, length = PACKET_IN_HEAD.unpack_from(body)
    frame = body[PACKET_IN_MATCH + length + -length % 8 + 2 :]
    return PacketIn(cookie, frame) if reason == REASON_ACTION and len(frame) == total else None
