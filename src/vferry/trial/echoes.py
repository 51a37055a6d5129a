"""Packets a second and round trips from the lab's peer to a guest and back, by ping, and what its host does for them.

The guest's kernel answers each packet with one as long.
"""

import math
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

from vferry.model.problem import Exit, Problem
from vferry.trial import round_trips
from vferry.trial.cpu_time import CpuTime
from vferry.trial.process import Process
from vferry.trial.relay_bench import Begin, throughput

WINDOW = 64
"""How many packets are on their way: with a few, what is counted is how long the lab's NICs gather interrupts."""
MOST = 10_000_000
"""So many packets at most, however fast the path is."""
INTERVAL_S = 0.05
"""Between packets that have the path to themselves; several times what most of them take there and back."""
WARM_S = 1.0
SLACK_S = 60
"""By so much longer than asked for, ping gives up by itself: a host that is busy answers late."""
HEADERS = 14 + 20 + 8
"""Octets of Ethernet, IPv4 and ICMP."""
LOOK = "head -qn1 /proc/uptime /proc/stat"
LOOK_S = 3.0
QUIET_CORES = 0.5
QUIET_WITHIN_S = 120.0
ENDED = re.compile(r"^(\d+) packets transmitted, (\d+) received,.* time (\d+)ms$", re.MULTILINE)
TOOK = re.compile(r" time=([\d.]+) ms$", re.MULTILINE)
"""Of the first answer: what comes twice has a remark behind it."""


class Ground(NamedTuple):
    """Where it is measured.

    `as_peer`: the argument vector that has another one run as the peer. `on_host`: what a shell script prints on the
    guest's host.
    """

    as_peer: Callable[[Sequence[str]], list[str]]
    on_host: Callable[[str], str]


class Busy(NamedTuple):
    """How many CPUs of a host were busy, on average, and how many of them with its guests' own CPUs."""

    cores: float
    guest_cores: float

    @classmethod
    def of(cls, said: str) -> Self:
        """By what `LOOK` has said twice."""
        began, first, ended, last = said.splitlines()
        took = float(ended.split()[0]) - float(began.split()[0])
        before, after = CpuTime.of(first), CpuTime.of(last)
        return cls((after.busy_s - before.busy_s) / took, (after.guests_s - before.guests_s) / took)


def figures(ground: Ground, address: str, sizes: Sequence[int], seconds: float, begin: Begin) -> list[dict[str, Any]]:
    """What `rate` and `trips` say of each size, once the guest's host has calmed down."""
    begin("waiting until the host is quiet")
    settle(ground)
    found = []
    for size in sizes:
        begin(f"{size} bytes: packets a second, then round trips")
        found.append({**rate(ground, address, size, seconds), **trips(ground, address, size, seconds)})
    return found


def settle(ground: Ground) -> None:
    """Until what a guest does as it boots is over, or a bound."""
    ends = time.monotonic() + QUIET_WITHIN_S
    while busy(ground, LOOK_S).cores > QUIET_CORES and time.monotonic() < ends:
        pass


def busy(ground: Ground, seconds: float) -> Busy:
    return Busy.of(ground.on_host(f"{LOOK}; sleep {seconds}; {LOOK}"))


def rate(ground: Ground, address: str, size: int, seconds: float) -> dict[str, float]:
    """With `WINDOW` packets of so many octets of Ethernet on their way. Problem ``bench-no-traffic``.

    `pps`: packets a second, both ways together; `cores`: CPUs that the guest's host was busy with meanwhile, but for
    the guest's own, which are `guest_cores`; `pps_per_core`; `lost_percent`: of the packets sent.
    """
    with Process(ground.as_peer(flood(address, size, seconds)), out=subprocess.PIPE) as ping:
        time.sleep(WARM_S)
        found = busy(ground, seconds)
        lasted = ping.running()
        said, errors = ping.end(signal.SIGINT)
    sent, answered, took_s = counted(said.decode(errors="replace"))
    if not (lasted and answered and took_s):
        raise _no_traffic(address, errors)
    # What was on its way as it ended would have been answered.
    lost = max(sent - answered - WINDOW, 0) / sent
    own = max(found.cores - found.guest_cores, 0.0)
    return {
        **throughput(2 * answered / took_s, own),
        "guest_cores": round(found.guest_cores, 3),
        "lost_percent": round(100 * lost, 2),
    }


def trips(ground: Ground, address: str, size: int, seconds: float) -> dict[str, float]:
    """What `round_trips.figures` says of packets of so many octets, each by itself. Problem ``bench-no-traffic``."""
    asked = ground.as_peer(one_by_one(address, size, seconds))
    done = subprocess.run(asked, capture_output=True, timeout=seconds + 2 * SLACK_S, check=False)
    took_ns = took(done.stdout.decode(errors="replace"))
    if not took_ns:
        raise _no_traffic(address, done.stderr)
    return round_trips.figures(took_ns)


def flood(address: str, size: int, seconds: float) -> list[str]:
    """ping with `WINDOW` packets on their way, until it is interrupted, and some time longer than `seconds` at most."""
    return _ping(address, size, seconds, "-q", "-f", "-l", str(WINDOW), "-c", str(MOST))


def one_by_one(address: str, size: int, seconds: float) -> list[str]:
    """ping for about so long, each packet by itself."""
    return _ping(address, size, seconds, "-i", str(INTERVAL_S), "-c", str(math.ceil(seconds / INTERVAL_S)))


def counted(said: str) -> tuple[int, int, float]:
    """How many packets ping has sent, how many were answered, and in how many seconds; nothing where it says none."""
    found = ENDED.search(said)
    return (int(found[1]), int(found[2]), int(found[3]) / 1000) if found else (0, 0, 0.0)


def took(said: str) -> list[int]:
    """What each packet that ping tells of took there and back, in nanoseconds."""
    return [round(float(milliseconds) * 1e6) for milliseconds in TOOK.findall(said)]


def _ping(address: str, size: int, seconds: float, *options: str) -> list[str]:
    bounds = ["-w", str(math.ceil(seconds) + SLACK_S), "-s", str(size - HEADERS)]
    return ["env", "LC_ALL=C", "ping", "-n", *options, *bounds, address]


def _no_traffic(address: str, errors: bytes) -> Problem:
    why = errors.decode(errors="replace").strip()[-500:] or "ping gets no answer, or not for as long as it was to"
    return Problem("bench-no-traffic", f"No packets from {address}: {why}", "Run it again", exit=Exit.UNDONE)
