"""Round trips of single packets between two virtio NICs, by a process of its own that does nothing else.

What Python takes for a packet, some microseconds, is in each, and the same for all paths.
"""

import gc
import json
import math
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from vferry.host.announcement import checksum, octets
from vferry.model.problem import Exit, Problem
from vferry.trial.bouncer import ADDRESSES, MACS, PORT, READY_S
from vferry.trial.ends import End, Ends, give_cpu
from vferry.trial.process import Process
from vferry.trial.virtio_nic import VirtioNic

LOST_S = 1.0
"""After so long a packet does not come any more."""
WARM_S = 0.5
TTL = 64
NUMBER = slice(42, 46)
"""Where a packet has its number: behind the header of UDP."""


def round_trips(cpus: tuple[int, int], ends: Ends, inside: Sequence[str], sizes: Sequence[int], seconds: float) -> Any:
    """For each size what `figures` says, of packets that go round for `seconds` each.

    On the first CPU; what the kernel does for the NICs, on the second. Problem ``bench-no-traffic``.
    """
    told = json.dumps(
        {"cpus": cpus, "ends": [(str(end.path), end.tap) for end in ends], "sizes": sizes, "seconds": seconds}
    )
    with Process([*inside, sys.executable, "-m", __name__, told], out=subprocess.PIPE) as process:
        said = process.output.read()
        if not said:
            why = process.errors()[-500:]
            raise Problem("bench-no-traffic", f"No packet goes round: {why}", "Run it again", exit=Exit.UNDONE)
    return json.loads(said)


def figures(took_ns: Sequence[int]) -> dict[str, float]:
    """`rtt_us_median` and `rtt_us_p99` (the nearest rank), in µs."""
    ordered = sorted(took_ns)
    return {
        "rtt_us_median": round(median(ordered) / 1000, 1),
        "rtt_us_p99": round(ordered[math.ceil(0.99 * len(ordered)) - 1] / 1000, 1),
    }


def packet(at: int, size: int) -> bytes:
    """What the NIC of this number sends to the other: UDP, `size` octets of Ethernet."""
    source, destination = at, 1 - at
    frame = octets(MACS[destination]) + octets(MACS[source]) + b"\x08\x00"
    length = size - len(frame)
    ends = b"".join(socket.inet_aton(ADDRESSES[each]) for each in (source, destination))
    head = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, TTL, socket.IPPROTO_UDP, 0) + ends
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    # UDP over IPv4 may go without a checksum.
    return (frame + head + struct.pack("!HHHH", PORT, PORT, length - len(head), 0)).ljust(size, b"\0")


class Pair:
    """Both NICs. A packet goes from one to the other, which sends one back."""

    def __init__(self, nics: tuple[VirtioNic, VirtioNic]) -> None:
        self._nics, self._number = nics, 0

    def go(self, packets: tuple[bytes, bytes]) -> int | None:
        """The nanoseconds that it takes there and back; None where it is lost."""
        self._number += 1
        number = self._number.to_bytes(4, "big")
        there, back = (frame[: NUMBER.start] + number + frame[NUMBER.stop :] for frame in packets)
        near, far = self._nics
        began = time.perf_counter_ns()
        near.send(there)
        if self._came(far, there, began):
            far.send(back)
            if self._came(near, back, began):
                return time.perf_counter_ns() - began
        return None

    def settle(self) -> None:
        """Until a packet goes round. OSError where none does."""
        ends = time.monotonic() + READY_S
        packets = packet(0, 64), packet(1, 64)
        while self.go(packets) is None:
            if time.monotonic() > ends:
                raise OSError("none comes back")

    def measured(self, size: int, seconds: float) -> list[int]:
        """What each takes, one after the other. OSError where none comes back."""
        packets = packet(0, size), packet(1, size)
        ends = time.monotonic() + seconds
        found: list[int | None] = [self.go(packets)]
        while time.monotonic() < ends:
            found.append(self.go(packets))
        if not any(found):
            raise OSError(f"none of {size} octets comes back")
        return [took for took in found if took is not None]

    def _came(self, nic: VirtioNic, frame: bytes, began: int) -> bool:
        while time.perf_counter_ns() < began + LOST_S * 1e9:
            got = nic.receive()
            if got is not None and got[: NUMBER.stop] == frame[: NUMBER.stop]:
                return True
        return False


def main(told: str) -> None:
    asked = json.loads(told)
    own, forwarding = asked["cpus"]
    first, second = (End(Path(path), tap) for path, tap in asked["ends"])
    os.sched_setaffinity(0, {own})
    gc.disable()
    with VirtioNic(first, READY_S) as here, VirtioNic(second, READY_S) as there:
        give_cpu(os.getpid(), forwarding)
        pair = Pair((here, there))
        pair.settle()
        for size in asked["sizes"]:
            pair.measured(size, WARM_S)
        print(json.dumps([figures(pair.measured(size, asked["seconds"])) for size in asked["sizes"]]))


if __name__ == "__main__":
    main(sys.argv[1])
