"""A guest's free memory, taken by its balloon and given back at once: what a copy then need not send.

What a guest has freed keeps its content, and a migration sends it. Its balloon makes the guest hand over pages that it
has free, which QEMU gives back to the host; once they are the guest's again, they are as if never used. The guest is
without them for a moment only, and always keeps a reserve: it is not made to swap, or to drop what it has cached.

How it was is kept in a file meanwhile. Where an agent is ended in between, the next one gives back as it starts; so do
`ReturnFree`, another `ReclaimFree`, and the release of the operation's claim.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from vferry.host.api import Done
from vferry.host.durable import write_durably
from vferry.host.gateways import OPERATION_ID, RUNTIME, places
from vferry.host.hypervisor import Hypervisor
from vferry.host.hypervisor_domains import uses_vfio
from vferry.model.definition import kept_from_balloon, parse
from vferry.model.memory import reclaimable
from vferry.model.problem import Problem

log = logging.getLogger("vferry.agent")

FILE = "balloon.json"
"""In the operation's directory while a guest's balloon is not as it was: the `Before`."""
KIB = 1024
TELLS_S = 5.0
"""How long a guest may take to say what it has free: it is asked every second."""
STANDS_S = 3.0
"""A balloon that has not moved for so long has got as far as it will."""
MOVES_S = 15.0
"""How long it may take in each direction; what it has got until then is taken."""
POLL_S = 0.1


class Useless(Exception):  # noqa: N818 - no error
    """Why nothing can be taken from a guest."""


class Before(Struct, frozen=True, kw_only=True):
    """What is to be put back."""

    guest: str
    run: int
    """libvirt's number for this run of the guest: another one begins with a balloon of its own."""
    period: int
    """Seconds between the statistics that the balloon was asked for; 0 for none."""
    held: int | None = None
    """KiB that the balloon had already; None while it has not been moved. Memory that is plugged meanwhile is the
    guest's, which it would not be if this were what the guest had."""


class Balloons:
    """Takes guests' free memory and gives it back; of one operation, one call at a time."""

    def __init__(self, hypervisor: Hypervisor, runtime: Path = RUNTIME) -> None:
        self._hypervisor = hypervisor
        self._runtime = runtime
        self._locks: dict[str, threading.Lock] = {}

    def reclaim(self, operation: str, guest: str) -> Done:
        """Takes and gives back, and tells how much; unchanged, with the reason, where nothing was taken.

        Problems: ``guest-unknown``, ``guest-off``, and ``libvirt-failed`` where it could not be given back.
        """
        with self._one_at_a_time(operation):
            self._put_back(operation)
            domain = self._hypervisor.running(guest)
            try:
                return Done(detail=f"{self._squeeze(operation, guest, domain) // KIB} MiB")
            except Useless as useless:
                return Done(changed=False, detail=f"nothing: {useless}")

    def give_back(self, operation: str) -> Done:
        """What was left with the balloon, as its agent was ended or libvirt failed; unchanged where that is nothing."""
        with self._one_at_a_time(operation):
            return Done(changed=self._put_back(operation))

    def give_all_back(self) -> None:
        """What agents have left that were ended in between: nobody else may ever ask for it."""
        for file in self._runtime.glob(f"*/{FILE}"):
            try:
                self.give_back(file.parent.name)
            except Problem as problem:
                log.warning("A guest's balloon is not as it was yet: %s", problem)

    def release(self, operation: str) -> None:
        """Gives back before the operation is forgotten. Problem ``libvirt-failed``."""
        if OPERATION_ID.fullmatch(operation):
            self.give_back(operation)
            self._locks.pop(operation, None)

    def _squeeze(self, operation: str, guest: str, domain: Any) -> int:
        """KiB that were taken and given back. Raises `Useless`."""
        with self._asking():
            before = self._before(guest, domain)
        self._keep(operation, before)
        try:
            with self._asking():
                return self._take(operation, before, domain)
        finally:
            self._put_back(operation)

    def _before(self, guest: str, domain: Any) -> Before:
        xml = domain.XMLDesc(0)
        if why := kept_from_balloon(xml):
            raise Useless(why)
        if uses_vfio(self._hypervisor, domain):
            raise Useless("QEMU keeps all of its memory while it has a device of the host")
        stats = parse(xml).find("devices/memballoon/stats")
        period = 0 if stats is None else int(stats.get("period", "0"))
        return Before(guest=guest, run=domain.ID(), period=period)

    def _take(self, operation: str, before: Before, domain: Any) -> int:
        """KiB that the balloon took. Raises `Useless`."""
        domain.setMemoryStatsPeriod(1, self._hypervisor.libvirt.VIR_DOMAIN_AFFECT_LIVE)
        has, free = _news(domain)
        wanted = reclaimable(has * KIB, free * KIB) // KIB
        if not wanted:
            raise Useless("it has next to nothing free")
        self._keep(operation, replace(before, held=domain.maxMemory() - has))
        taken = has - self._move(domain, has - wanted)
        if taken <= 0:
            raise Useless("its balloon does not move")
        return taken

    def _put_back(self, operation: str) -> bool:
        """Whether there was anything to put back. What the guest does not take in time it takes when it can."""
        before = self._read(operation)
        if before is None:
            return False
        # Looked for anew: the connection by which it was found may be what has failed.
        domain = self._hypervisor.find(before.guest)
        with self._hypervisor.calling("Giving a guest its memory back"):
            if domain is not None and domain.isActive() and domain.ID() == before.run:
                if before.held is not None:
                    self._move(domain, domain.maxMemory() - before.held)
                domain.setMemoryStatsPeriod(before.period, self._hypervisor.libvirt.VIR_DOMAIN_AFFECT_LIVE)
        self._file(operation).unlink(missing_ok=True)
        return True

    def _move(self, domain: Any, target: int) -> int:
        """What a guest has, in KiB, when its balloon has got there, or does not get any further."""
        domain.setMemoryFlags(target, self._hypervisor.libvirt.VIR_DOMAIN_AFFECT_LIVE)
        has = domain.memoryStats()["actual"]
        began = moved = time.monotonic()
        while has != target and time.monotonic() < min(moved + STANDS_S, began + MOVES_S):
            time.sleep(POLL_S)
            before, has = has, domain.memoryStats()["actual"]
            moved = moved if has == before else time.monotonic()
        return int(has)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Turns a refusal of libvirt's into `Useless`: a migration does not fail for that."""
        try:
            with self._hypervisor.calling("Asking its balloon"):
                yield
        except Problem as problem:
            raise Useless(problem.message) from problem

    @contextlib.contextmanager
    def _one_at_a_time(self, operation: str) -> Iterator[None]:
        with self._locks.setdefault(operation, threading.Lock()):
            yield

    def _keep(self, operation: str, before: Before) -> None:
        file = self._file(operation)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        write_durably(file, msgspec.json.encode(before))

    def _read(self, operation: str) -> Before | None:
        with contextlib.suppress(FileNotFoundError):
            return msgspec.json.decode(self._file(operation).read_bytes(), type=Before)
        return None

    def _file(self, operation: str) -> Path:
        return places(self._runtime, operation).directory / FILE


def _news(domain: Any) -> tuple[int, int]:
    """What a guest has, and what of it is free, in KiB, as it says from now on. Raises `Useless`."""
    # libvirt tells in whole seconds when the guest has answered.
    asked, until = time.time(), time.monotonic() + TELLS_S
    while time.monotonic() < until:
        told: dict[str, int] = domain.memoryStats()
        if told.get("last_update", 0) > asked and "unused" in told:
            return told["actual"], told["unused"]
        time.sleep(POLL_S)
    raise Useless("it does not say what it has free")
