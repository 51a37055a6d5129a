"""Frames that come into a bridge of Open vSwitch by one of its ports, as if who is behind it had sent them.

By a packet-out to the bridge's tables, over the socket by which ovn-controller fills these, in the version that it
speaks: OpenFlow 1.5 (section 7.3.6).
"""

import errno
import socket
import struct
from pathlib import Path

from vferry.host.openvswitch import DIRECTORY, OpenVSwitch, connect

VERSION = 6
"""Of OpenFlow 1.5, on the wire."""
HELLO, ERROR, PACKET_OUT, BARRIER_REQUEST, BARRIER_REPLY = 0, 1, 13, 20, 21
HEADER = struct.Struct("!BBHI")
NOT_BUFFERED = 0xFFFFFFFF
IN_PORT = 0x80000004
"""OXM's field for it: of the basic class, four octets."""
TABLES = 0xFFFFFFF9
"""The port that stands for the way through the tables."""


class Inlet:
    """A port of a bridge as a way in."""

    def __init__(self, root: Path, port: str) -> None:
        self._root = root
        self._port = port

    def send(self, frame: bytes, /) -> int:
        """Waits until the bridge has done with the frame what its tables say. OSError where it does not."""
        found = OpenVSwitch(self._root).find(self._port)
        if found is None:
            raise OSError(errno.ENODEV, f"no bridge has the port {self._port}")
        bridge, number = found
        with connect(way_in(self._root, bridge)) as wire:
            wire.sendall(message(HELLO) + packet_out(number, frame) + message(BARRIER_REQUEST))
            _await_barrier(wire)
        return len(frame)

    def close(self) -> None:
        """Nothing is kept open: the switch may be started anew between two frames."""


def way_in(root: Path, bridge: str) -> Path:
    """The socket by which a bridge takes OpenFlow."""
    return root / DIRECTORY / f"{bridge}.mgmt"


def packet_out(port: int, frame: bytes, actions: bytes | None = None) -> bytes:
    """The message that has actions done on a frame as if it had come in by a port, or has it go through the tables."""
    match = struct.pack("!HHII4x", 1, 12, IN_PORT, port)
    actions = output(TABLES) if actions is None else actions
    return message(PACKET_OUT, struct.pack("!IH2x", NOT_BUFFERED, len(actions)) + match + actions + frame)


def output(port: int) -> bytes:
    """The action by which a frame goes out by a port."""
    return struct.pack("!HHIH6x", 0, 16, port, 0)


def message(kind: int, body: bytes = b"") -> bytes:
    return HEADER.pack(VERSION, kind, HEADER.size + len(body), 0) + body


def _await_barrier(wire: socket.socket) -> None:
    """Reads messages up to the one that says that all before it was done. OSError for a refusal."""
    with wire.makefile("rb") as said:
        while len(header := said.read(HEADER.size)) == HEADER.size:
            _, kind, length, _ = HEADER.unpack(header)
            body = said.read(length - HEADER.size)
            if kind == BARRIER_REPLY:
                return
            if kind == ERROR:
                raise OSError(errno.EPROTO, f"the bridge refuses the frame (OpenFlow error {body[:4].hex()})")
    raise OSError(errno.ECONNRESET, "the bridge has hung up")
