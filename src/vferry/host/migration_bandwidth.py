"""What each migration that leaves a host may send, where they share a limit."""

import contextlib
import logging
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from vferry.host.hypervisor import Hypervisor
from vferry.host.migration_record import FILE, Record, load

log = logging.getLogger("vferry.agent")

MIB = 1 << 20
UNLIMITED = (2**63 - 1) // MIB
"""The greatest bandwidth that libvirt takes, in MiB/s (QEMU_DOMAIN_MIG_BANDWIDTH_MAX)."""


def shares(most: int | None, wishes: Sequence[int]) -> list[int]:
    """Bytes per second for each of some wishes, 0 being no limit: nobody gets more while another gets less for it."""
    if most is None:
        return [*wishes]
    found = [0] * len(wishes)
    left = most
    by_wish = sorted(range(len(wishes)), key=lambda n: wishes[n] or math.inf)
    for served, n in enumerate(by_wish):
        share = max(1, left // (len(wishes) - served))
        found[n] = min(wishes[n] or share, share)
        left -= found[n]
    return found


def mib_per_second(bandwidth: int) -> int:
    """As libvirt counts: no limit is its greatest, and less than one is one."""
    return max(1, min(bandwidth // MIB, UNLIMITED)) if bandwidth else UNLIMITED


class Bandwidth:
    """Divides a host's limit among the migrations that leave it. What runs is read from records."""

    def __init__(self, most: Callable[[], int | None], hypervisor: Hypervisor, runtime: Path) -> None:
        """`most` is the limit as it is now, in bytes per second; None is no limit."""
        self._most = most
        self._hypervisor = hypervisor
        self._runtime = runtime
        self._lock = threading.Lock()
        self._divided = most() is not None
        """Whether what runs may have less than it was asked for, and is to be told when there is more."""

    def of(self, record: Record) -> int:
        """Bytes per second for one that is about to start, or runs."""
        others = [other for other in self._active() if other.operation != record.operation]
        return shares(self._most(), [record.bandwidth, *(other.bandwidth for other in others)])[0]

    def divide(self) -> None:
        """Tells libvirt, for all that copy. A migration that ends meanwhile, or a refusal, changes nothing.

        A guest in its pause is passed over: its QEMU answers only after it.
        """
        if self._divided:
            with self._lock:
                self._divide()

    def divide_anew(self) -> None:
        """As `divide`, once the limit has changed: also where there was none, or is none any more."""
        self._divided = True
        self.divide()

    def _divide(self) -> None:
        active = self._active()
        for record, share in zip(active, shares(self._most(), [each.bandwidth for each in active]), strict=True):
            if self._hypervisor.events.paused_for_migration(record.uuid, record.started) is not None:
                continue
            try:
                domain = self._hypervisor.find(record.guest)
                if domain is not None:
                    domain.migrateSetMaxSpeed(mib_per_second(share), 0)
            except Exception as error:
                log.warning("the bandwidth of %s's migration could not be set: %s", record.guest, error)

    def _active(self) -> list[Record]:
        found = []
        with contextlib.suppress(OSError):
            for path in sorted(self._runtime.glob(f"*/{FILE}")):
                record = load(path.parent)
                if record is not None and record.state == "active":
                    found.append(record)
        return found
