"""All migrations of a bench, in turn."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from vferry.model.problem import Problem
from vferry.trial.content import MIB, Layout, Memory, check_free, fill, floor_of_cold, layout
from vferry.trial.guest import accelerator
from vferry.trial.migration import Setting, migrate
from vferry.trial.modes import CACHE_BYTES, MODES
from vferry.trial.results import Case, Results, code

LEAST_DEADLINE_S = 60.0
# How often the guest's memory could pass the link, uncompressed, before a migration is given up.
PASSES = 4
# What two QEMUs, two gateways and the bench take besides, roughly.
BESIDES_BYTES = 768 * MIB


class Settings(NamedTuple):
    """What is measured: all combinations of modes, links (Mbit/s) and rates (pages/s), `runs` times.

    `qemu` is the start of its command line, `content` a folder with programs, which may be taken `again`; `deadline` in
    seconds, None for as long as `PASSES` of the guest's memory take; `memory` in MiB, and how much of it is `used`.
    """

    qemu: Sequence[str]
    modes: Sequence[str]
    links: Sequence[int]
    rates: Sequence[int]
    runs: int
    memory: int
    tls: bool
    content: Path
    deadline: float | None
    used: int = 0
    again: bool = False

    def cases(self) -> Iterator[Case]:
        for link in self.links:
            for rate in self.rates:
                for mode in self.modes:
                    yield Case(mode, link, rate, self.memory, self.tls, self.used)


Environment = Callable[[Case], dict[str, Any]]
"""What the rows of a case must have in common to be compared, beside the case itself."""


def environment(settings: Settings) -> Environment:
    """That of these settings, on this machine, now. Raises `Problem`."""
    common = {"commit": code(), "qemu": _version(settings.qemu), "accelerator": accelerator()[1]}
    return lambda case: {**common, "deadline_s": round(deadline(settings.deadline, case), 1)}


def measure(
    settings: Settings,
    results: Results[Case],
    now: Environment,
    begin: Callable[[str], None],
    tell: Callable[[str], None],
) -> None:
    """Measure what `results` lacks. `begin` is told of each migration, `tell` how far it is; raises `Problem`."""
    pending = [
        (number, case)
        for number in range(1, settings.runs + 1)
        for case in settings.cases()
        if results.count(case, now(case)) < number
    ]
    if not pending:
        return
    places = layout(settings.memory, settings.used)
    check_free(_needed(places, [case for _, case in pending]))
    with _content(settings, places, begin) as (content, digest):
        begin("compressing them, for the floor")
        cold = floor_of_cold(content, places)
        for number, case in pending:
            begin(f"run {number} of {settings.runs}: {words(case)}")
            limit = deadline(settings.deadline, case)
            setting = Setting(settings.qemu, places, content, cold, case.link, case.rate, case.tls, limit)
            figures = migrate(setting, MODES[case.mode], tell)
            results.add(case, {**now(case), "content": digest, **figures})


def _needed(places: Layout, cases: Sequence[Case]) -> int:
    """Bytes: the content by itself and in two guests, what of it changes once more, and the copies of two gateways."""
    changing = places.hot if any(case.rate for case in cases) else 0
    copies = min(CACHE_BYTES, places.content) if any(MODES[case.mode].codec for case in cases) else 0
    return 3 * places.content + changing + 2 * copies + BESIDES_BYTES


def deadline(chosen: float | None, case: Case) -> float:
    """Seconds after which a migration is given up."""
    if chosen is not None:
        return chosen
    return max(LEAST_DEADLINE_S, PASSES * case.memory * MIB * 8 / (case.link * 1e6)) if case.link else LEAST_DEADLINE_S


def words(case: Case) -> str:
    """A case in words."""
    link = f"{case.link:,} Mbit/s" if case.link else "link not shaped"
    rate = f"{case.rate:,} pages/s" if case.rate else "idle"
    return f"{case.mode}, {link}, {rate}" + (", TLS" if case.tls else "")


@contextmanager
def _content(settings: Settings, places: Layout, begin: Callable[[str], None]) -> Iterator[tuple[Memory, str]]:
    """What goes into every guest's memory, and its digest."""
    memory = Memory("content", places.size)
    try:
        begin(f"gathering {places.content // MIB} MiB of programs")
        yield memory, fill(memory, places, settings.content, again=settings.again)
    finally:
        memory.close()


def _version(qemu: Sequence[str]) -> str:
    """QEMU's version; `Problem` qemu-missing."""
    try:
        done = subprocess.run([*qemu, "--version"], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[0].removeprefix("QEMU emulator version ")
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise Problem(
            "qemu-missing", f"{' '.join(qemu)} does not run: {error}", "Install qemu-system-x86, or give --qemu"
        ) from error
