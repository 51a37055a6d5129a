"""The record of a measurement: when each probe was sent, and how long its answer took.

On file it is one header of JSON, padded to `HEADER_BYTES`, and then 16 bytes a probe in the order of sending.
After `capacity` probes the file starts over: it keeps the newest, and does not grow without bound.
"""

import json
import os
import struct
import sys
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADER_BYTES = 4096
ROW = struct.Struct("<qq")
# 128 MiB: more than two hours of 1,000 probes a second.
CAPACITY = 8 << 20
VERSION = 1

LOST = -1
UNSENT = -2


def _column() -> "array[int]":
    return array("q")


@dataclass
class ProbeRecord:
    """Two columns of equal length, in the order of sending.

    `sent`: CLOCK_MONOTONIC of the measuring machine in ns. `rtt`: ns until the answer arrived, `LOST` without
    an answer within a second, or `UNSENT` if the kernel refused to send the probe. `wall_offset_ns` plus
    `sent` is the time since 1970. `wrapped`: the oldest probes are missing, since the file is bounded. `rate`:
    probes a second; `wanted`: how many were asked for, where fewer were sent.
    """

    rate: int
    wanted: int | None = None
    address: str = ""
    method: str = "icmp"
    wall_offset_ns: int = 0
    wrapped: bool = False
    sent: "array[int]" = field(default_factory=_column)
    rtt: "array[int]" = field(default_factory=_column)

    @classmethod
    def load(cls, path: Path) -> "ProbeRecord":
        """Reads a record, also one whose writer was killed. Raises OSError, or ValueError if it is none."""
        with path.open("rb") as file:
            header = _parse(file.read(HEADER_BYTES))
            rows = array("q")
            data = file.read()
            rows.frombytes(data[: len(data) - len(data) % ROW.size])
        if sys.byteorder == "big":
            rows.byteswap()
        sent, rtt = rows[0::2], rows[1::2]
        # Where the file started over, time runs backwards: the oldest probe is behind that place.
        turn = next((at for at in range(1, len(sent)) if sent[at] < sent[at - 1]), 0)
        return cls(
            rate=header["rate"],
            wanted=header.get("wanted"),
            address=header["address"],
            method=header["method"],
            wall_offset_ns=header["wall_offset_ns"],
            wrapped=len(sent) >= header["capacity"],
            sent=sent[turn:] + sent[:turn],
            rtt=rtt[turn:] + rtt[:turn],
        )


def _parse(data: bytes) -> dict[str, Any]:
    try:
        header = json.loads(data)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("vferry_probe") != VERSION:
        raise ValueError("this is no record of probes, or one of another version")
    return header


class Recording:
    """Writes a record in batches. Rows must come in the order of sending."""

    def __init__(self, path: Path, header: dict[str, Any], capacity: int = CAPACITY) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(path, flags, 0o600)
        self._capacity = capacity
        self._next = 0
        self._batch = bytearray()
        text = json.dumps({"vferry_probe": VERSION, "capacity": capacity} | header).encode()
        os.pwrite(self._file, text.ljust(HEADER_BYTES), 0)

    def add(self, sent: int, rtt: int) -> None:
        """Takes one probe; it reaches the file with the next `flush`."""
        self._batch += ROW.pack(sent, rtt)

    def flush(self) -> None:
        """Appends what was taken, over the oldest rows once the file is full. Raises OSError."""
        data, self._batch = bytes(self._batch), bytearray()
        while data:
            room = (self._capacity - self._next) * ROW.size
            part, data = data[:room], data[room:]
            os.pwrite(self._file, part, HEADER_BYTES + self._next * ROW.size)
            self._next = (self._next + len(part) // ROW.size) % self._capacity

    def close(self) -> None:
        """Flushes and closes. Raises OSError."""
        try:
            self.flush()
        finally:
            os.close(self._file)
