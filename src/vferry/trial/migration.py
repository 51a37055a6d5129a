"""One migration, measured."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from vferry.model.problem import Problem
from vferry.trial.certificates import Identity, issue
from vferry.trial.content import Layout, Memory, copy, floor, hot, warm
from vferry.trial.gateways import Gateways
from vferry.trial.guest import Guest
from vferry.trial.link import ADDRESSES, DESTINATION, SOURCE, Link
from vferry.trial.modes import Mode
from vferry.trial.monitor import Monitor, RefusedError
from vferry.trial.process import Process
from vferry.trial.usage import Sample, busiest, taken

PORT = 7002
BEFORE_S = 3.0
"""How long the guest's own speed is measured before the migration."""
SAMPLE_S = 0.1
WARM = 4
"""How often the guest's memory a migration takes, at both ends and in both gateways together, and some more."""
Figures = dict[str, Any]


class Setting(NamedTuple):
    """What a migration runs in. `mbit` is 0 where the link is not shaped, `rate` 0 where the guest is idle.

    `cold_floor_bytes` is what the content that the guest does not change comes to (`content.floor_of_cold`).
    """

    qemu: Sequence[str]
    places: Layout
    content: Memory
    cold_floor_bytes: int
    mbit: int
    rate: int
    tls: bool
    deadline_s: float


class _Pair(NamedTuple):
    source: Guest
    destination: Guest


def migrate(setting: Setting, mode: Mode, tell: Callable[[str], None]) -> Figures:
    """Migrate a new guest and return what was measured; `status` says how it ended.

    `completed`, `not converged` within the deadline, `failed`, or `not offered` by this QEMU. Times end in `_s` or
    `_ms`, sizes in `_bytes`.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vferry-trial-")))
        link = stack.enter_context(Link(setting.mbit))
        pair = stack.enter_context(_guests(setting, link))
        identities = issue(folder) if setting.tls else None
        try:
            _prepare(pair, mode, None if mode.codec else identities)
        except RefusedError as refused:
            return {"status": "not offered", "reason": str(refused)}
        gateways = stack.enter_context(Gateways(link, folder, identities, mode.codec)) if mode.codec else None
        return _Run(setting, link, pair, gateways).measure(tell)


@contextmanager
def _guests(setting: Setting, link: Link) -> Iterator[_Pair]:
    with ExitStack() as stack:
        guests = []
        for side in (SOURCE, DESTINATION):
            memory = Memory("guest", setting.places.size)
            stack.callback(memory.close)
            if side == SOURCE:
                copy(setting.content, memory, setting.places)
            qemu = link.inside(side, setting.qemu)
            guest = Guest(qemu, memory, setting.places.work(setting.rate), incoming=side == DESTINATION)
            guests.append(stack.enter_context(guest))
        yield _Pair(*guests)


def _prepare(pair: _Pair, mode: Mode, identities: tuple[Identity, Identity] | None) -> None:
    for side, guest in enumerate(pair):
        more: Figures = {}
        if identities:
            guest.monitor.ask("object-add", **identities[side].qemu_object)
            more = identities[side].qemu_parameters
        guest.prepare(mode, **more)


class _Run:
    """One migration between two guests that are prepared."""

    def __init__(self, setting: Setting, link: Link, pair: _Pair, gateways: Gateways | None) -> None:
        self._setting = setting
        self._link = link
        self._source, self._destination = pair
        self._gateways = gateways
        self._parties: dict[str, Process] = {"source": pair.source.process, "destination": pair.destination.process}
        if gateways:
            self._parties |= {"send": gateways.send, "receive": gateways.receive}
        self._vcpu = pair.source.vcpu()

    def measure(self, tell: Callable[[str], None]) -> Figures:
        self._source.await_ready()
        before = self._speed(BEFORE_S)
        to = f"unix:{self._gateways.exit}" if self._gateways else f"tcp:{ADDRESSES[DESTINATION]}:{PORT}"
        self._destination.monitor.ask("migrate-incoming", uri=to)
        warm(WARM * self._setting.places.size)
        hot_then: Iterable[bytes] = hot(self._source.memory, self._setting.places)
        if self._setting.rate:  # else it stays as it is
            hot_then = list(hot_then)
        carried, changed = self._link.carried(), self._source.changed()
        samples, begin = [self._sample()], time.time()
        self._source.monitor.ask("migrate", uri=f"unix:{self._gateways.entrance}" if self._gateways else to)
        found, arrived = self._follow(samples, tell)
        stop = self._source.monitor.when("STOP")
        figures = {
            **how_it_ended(found, arrived, self._setting.deadline_s),
            **_times(begin, stop, self._destination.monitor),
            "rounds": found.get("ram", {}).get("dirty-sync-count"),
            "wire_bytes": self._link.carried() - carried,
            "pages_a_s_before": round(before),
            **_usage(samples),
        }
        ran_s = (stop or samples[-1].at - samples[0].at + begin) - begin
        if before and ran_s:
            figures["guest_speed"] = (self._source.changed() - changed) / ran_s / before
        figures["floor_bytes"] = self._setting.cold_floor_bytes + floor(hot_then)
        if figures["status"] == "completed":
            figures["pause_ms"] = found["downtime"]
            figures["differing_pages"] = self._source.memory.differing(self._destination.memory)
        if self._gateways:
            ends = {"send": self._gateways.send, "receive": self._gateways.receive}
            figures["gateway_peak_bytes"] = {name: process.peak_bytes() for name, process in ends.items()}
            figures["gateway"], log = self._gateways.end()
            figures |= {"log": log} if figures["status"] != "completed" else {}
        return figures

    def _speed(self, seconds: float) -> float:
        """Pages that the guest changes a second."""
        begin, changed = time.monotonic(), self._source.changed()
        time.sleep(seconds)
        return (self._source.changed() - changed) / (time.monotonic() - begin)

    def _follow(self, samples: list[Sample], tell: Callable[[str], None]) -> tuple[Figures, Figures]:
        """Take samples until both sides have ended or the time is up; returns what they say of it then."""
        deadline = time.monotonic() + self._setting.deadline_s
        while True:
            time.sleep(SAMPLE_S)
            samples.append(self._sample())
            found = _asked(self._source), _asked(self._destination)
            states = [each.get("status") for each in found]
            if set(states) & {"failed", "cancelled"} or states == ["completed"] * 2 or time.monotonic() > deadline:
                return found
            tell(_progress(found[0]))

    def _sample(self) -> Sample:
        """CPU time of all; that of the guest's own processor counts as a party of its own."""
        used = {name: process.cpu_s() for name, process in self._parties.items()}
        guest = self._parties["source"].cpu_s(self._vcpu)
        return Sample(time.monotonic(), {**used, "source": used["source"] - guest, "guest": guest})


def _asked(guest: Guest) -> Figures:
    """What a side says of the migration; a QEMU that has ended has failed."""
    try:
        return dict(guest.monitor.ask("query-migrate"))
    except Problem as problem:
        return {"status": "failed", "error-desc": problem.message}


def how_it_ended(source: Figures, destination: Figures, deadline_s: float) -> Figures:
    """The status of a migration, from what its two sides say of it, and the reason if it was not completed."""
    states = [source.get("status"), destination.get("status")]
    if "failed" in states:
        return {"status": "failed", "reason": source.get("error-desc") or destination.get("error-desc") or ""}
    if states == ["completed"] * 2:
        return {"status": "completed"}
    return {"status": "not converged", "reason": f"ended after {deadline_s:.0f} s"}


def _times(begin: float, stop: float | None, destination: Monitor) -> Figures:
    """From the order to migrate until the destination could run, and how long nobody ran; null if it cannot."""
    end = destination.when("MIGRATION", status="completed")
    if end is None or stop is None:
        return {"total_s": None, "blackout_ms": None}
    return {"total_s": round(end - begin, 3), "blackout_ms": round(1000 * (end - stop), 1)}


def _usage(samples: Sequence[Sample]) -> Figures:
    """CPU of QEMU and the gateways, but not of the guest's own processor."""
    without = [Sample(at, {name: cpu for name, cpu in used.items() if name != "guest"}) for at, used in samples]
    parts = {name: round(seconds, 2) for name, seconds in taken(samples).items()}
    cpu_s = sum(seconds for name, seconds in parts.items() if name != "guest")
    return {"cpu_s": round(cpu_s, 2), "cpu_peak": round(busiest(without), 2), "cpu_parts_s": parts}


def _progress(found: Figures) -> str:
    ram = found.get("ram", {})
    return f"round {ram.get('dirty-sync-count', 0)}, {ram.get('remaining', 0) >> 20} MiB remaining"
