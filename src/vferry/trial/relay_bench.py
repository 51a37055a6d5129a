"""All measurements of `vferry bench relay`, in turn."""

import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from vferry.model.problem import Problem
from vferry.trial import bouncer
from vferry.trial.bouncer import BURST, Bouncer
from vferry.trial.cpu_time import CpuTime
from vferry.trial.dpdk_switch import MEMORY_MIB, huge_pages
from vferry.trial.namespace import Namespace
from vferry.trial.relay_paths import WAYS, Place
from vferry.trial.results import Results, code
from vferry.trial.round_trips import round_trips

BURSTS = 8
"""How many are on their way from each NIC: 256 packets, a quarter of a queue."""
WARM_S = 0.5
CPUS = 2
Begin = Callable[[str], None]
"""Is told of each thing that is begun, in words."""


class RelayCase(NamedTuple):
    """One of the things compared: a path, and the bytes of a packet."""

    path: str
    size: int

    @property
    def key(self) -> dict[str, Any]:
        return self._asdict()

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        """That of a row."""
        return cls(row["path"], row["size"])


class RelaySettings(NamedTuple):
    """What is measured: all combinations of paths and sizes, `runs` times, for `seconds` each."""

    paths: Sequence[str]
    sizes: Sequence[int]
    runs: int
    seconds: float


def environment(seconds: float) -> dict[str, Any]:
    """What rows must have in common to be compared."""
    return {"commit": code(), "kernel": platform.release(), "seconds": seconds}


def measure(settings: RelaySettings, results: Results[RelayCase], begin: Begin) -> None:
    """Measures what `results` lacks. Raises `Problem`."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < CPUS:
        remedy = "Give it more; isolated ones by name: taskset -c 2,3 vferry bench relay"
        raise Problem("bench-few-cpus", "It takes two CPUs: one sends, the other forwards", remedy)

    def measured(cases: Sequence[RelayCase]) -> list[tuple[RelayCase, dict[str, Any]]]:
        return _measured(cases, cpus[-1], cpus[-2], settings.seconds)

    in_turn(settings, environment(settings.seconds), results, begin, measured)


def in_turn(
    settings: RelaySettings,
    now: Mapping[str, Any],
    results: Results[RelayCase],
    begin: Begin,
    measured: Callable[[Sequence[RelayCase]], list[tuple[RelayCase, dict[str, Any]]]],
) -> None:
    """Adds what `results` lacks, path by path; `measured` has the figures of what is wanted of one path.

    `now`: what rows must have in common to be compared.
    """
    for number in range(1, settings.runs + 1):
        for path in settings.paths:
            wanted = [RelayCase(path, size) for size in settings.sizes]
            cases = [case for case in wanted if results.count(case, dict(now)) < number]
            if cases:
                begin(f"run {number} of {settings.runs}: {path}")
                for case, figures in measured(cases):
                    results.add(case, {**now, **figures})


def _measured(
    cases: Sequence[RelayCase], traffic: int, forwarding: int, seconds: float
) -> list[tuple[RelayCase, dict[str, Any]]]:
    """The figures of one path, which is laid for it."""
    sizes = [case.size for case in cases]
    with (
        tempfile.TemporaryDirectory(prefix="vferry-bench-") as folder,
        huge_pages(MEMORY_MIB + bouncer.MEMORY_MIB),
        Namespace() as namespace,
        WAYS[cases[0].path].laid(Place(Path(folder), forwarding, namespace)) as ends,
    ):
        with Bouncer(Path(folder, "traffic"), traffic, forwarding, ends, namespace.inside()) as packets:
            packets.settle()
            rates = [rate(packets, size, seconds) for size in sizes]
        trips = round_trips((traffic, forwarding), ends, namespace.inside(), sizes, seconds)
    return [(case, {**fast, **quiet}) for case, fast, quiet in zip(cases, rates, trips, strict=True)]


def rate(packets: Bouncer, size: int, seconds: float) -> dict[str, float]:
    """Packets a second, and what they take of the CPUs. Problem ``bench-no-traffic``.

    `pps`: packets that were forwarded in a second; `cores`: CPUs that were busy meanwhile, but for the traffic's own;
    `pps_per_core`.
    """
    packets.send(size, BURST, BURSTS)
    time.sleep(WARM_S)
    began, received, busy = time.monotonic(), packets.received(), _busy_s() - packets.cpu_s()
    time.sleep(seconds)
    took, count = time.monotonic() - began, packets.received() - received
    cores = max(_busy_s() - packets.cpu_s() - busy, 0.0) / took
    packets.stop()
    if not count:
        raise Problem("bench-no-traffic", "No packet comes back", "Run it again, with fewer other programs beside it")
    return throughput(count / took, cores)


def throughput(pps: float, cores: float) -> dict[str, float]:
    """Packets a second, the CPUs that were busy with them, and the packets that one CPU would pass."""
    return {"pps": round(pps), "cores": round(cores, 3), "pps_per_core": round(pps / cores) if cores else 0}


def _busy_s() -> float:
    return CpuTime.of(Path("/proc/stat").read_text()).busy_s
