"""Migrations that leave this host: libvirt's peer-to-peer one through the gateway's sockets, followed and aborted."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from vferry.host import hypervisor_domains as domains
from vferry.host.api import Done, Migration, StartMigration
from vferry.host.gateways import Places, places
from vferry.host.hypervisor import Hypervisor
from vferry.host.migration_bandwidth import Bandwidth, mib_per_second
from vferry.host.migration_parameters import flags, parameters, way
from vferry.host.migration_record import Record, answer, load, save, update
from vferry.host.migration_statistics import Statistics
from vferry.model.problem import Exit, Problem

GRACE_S = 5.0
"""How long after its start a migration whose agent has died may be without a job in libvirt."""

# Numbers of libvirt's ABI: virDomainState, virDomainShutoffReason.
SHUTOFF, SHUTOFF_MIGRATED = 5, 4


class Migrations:
    """Starts migrations, each in a thread, and tells how they stand. What is true is asked of libvirt."""

    def __init__(self, hypervisor: Hypervisor, runtime: Path, most: Callable[[], int | None]) -> None:
        """`most` is what all together may send now, in bytes per second; None is no limit."""
        self._hypervisor = hypervisor
        self._bandwidth = Bandwidth(most, hypervisor, runtime)
        self._statistics = Statistics(hypervisor)
        self._runtime = runtime
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._shared: set[str] = set()
        """Operations whose copy has its share of the bandwidth."""

    def start(self, operation: str, wanted: StartMigration) -> Done:
        """Starts, and returns at once. Unchanged when this operation's migration runs, or has completed.

        Problems: ``guest-unknown``, ``guest-off``, ``guest-migrating``, ``libvirt-failed``.
        """
        with self._lock:
            record = self._current(operation, wanted.guest)
            if record is not None and record.state in ("active", "completed"):
                return Done(changed=False, detail=record.state)
            domain = self._ready(wanted.guest)
            here = places(self._runtime, operation)
            uuid = domain.UUIDString()
            self._hypervisor.events.forget_job(uuid)
            if domains.uses_vfio(self._hypervisor, domain):
                self._statistics.device_state.expect(uuid)
            self._limit_pause(domain, wanted)
            asked = wanted.bandwidth or 0
            started = time.monotonic()
            record = Record(
                operation=operation,
                guest=wanted.guest,
                uuid=uuid,
                started=started,
                bandwidth=asked,
                downtime_ms=wanted.downtime_ms,
            )
            save(here.directory, record)
            thread = threading.Thread(
                target=self._run, args=(domain, wanted, here, record), name=f"migration-{operation}", daemon=True
            )
            self._threads[operation] = thread
            thread.start()
        self._bandwidth.divide()
        return Done()

    def read(self, operation: str, guest: str) -> Migration:
        """How an operation's migration of a guest stands; state ``none`` when it was never started here."""
        with self._lock:
            before = self._record(operation, guest)
            record = self._current(operation, guest)
        if record is None:
            return Migration()
        self._share(operation, before, record)
        return answer(record)

    def _share(self, operation: str, before: Record | None, record: Record) -> None:
        """Divides the bandwidth anew once a copy runs, for libvirt sets what it was started with only then, or ends."""
        copies = record.state == "active" and record.statistics.get("rounds", 0) >= 1
        if copies and operation not in self._shared:
            self._shared.add(operation)
            self._bandwidth.divide()
        elif before is not None and before.state == "active" and record.state != "active":
            self._shared.discard(operation)
            self._bandwidth.divide()

    def holds(self, operation: str) -> str | None:
        """The guest that libvirt would let go on here, if the operation's gateway ended now."""
        record = load(places(self._runtime, operation).directory)
        if record is None or self.read(operation, record.guest).state != "active":
            return None
        return record.guest if domains.is_paused(self._hypervisor, record.guest) else None

    def concede(self, operation: str, guest: str) -> Done:
        """Ends the paused guest that has left. Problems: ``guest-running``, ``guest-not-leaving``."""
        with self._lock:
            record = self._record(operation, guest)
            done = domains.concede(self._hypervisor, guest, leaving=record is not None)
            if record is not None and done.changed:
                update(places(self._runtime, operation).directory, msgspec.structs.replace(record, conceded=True))
            return done

    def abort(self, operation: str, guest: str) -> Done:
        """Cancels; unchanged when nothing runs, or libvirt does not get at it.

        Problem ``migration-ending`` when it is too late for that.
        """
        record = self._record(operation, guest)
        domain = self._hypervisor.find(guest)
        if record is None or domain is None:
            return Done(changed=False)
        libvirt = self._hypervisor.libvirt
        try:
            domain.abortJob()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or not self._job_runs(domain):
                return Done(changed=False)
            raise Problem(
                "migration-ending",
                f"The migration of {guest} cannot be aborted any more: {error.get_error_message()}",
                "Ask again how it stands",
                exit=Exit.OPERATOR,
            ) from error
        return Done()

    def limit(self, operation: str, guest: str, bandwidth: int) -> Done:
        """Changes the bandwidth of a migration that runs, in bytes per second; 0 lifts the limit."""
        domain = self._copying(operation, guest)
        record = self._amend(operation, guest, bandwidth=bandwidth) if domain is not None else None
        if record is None:
            return Done(changed=False)
        with self._hypervisor.calling("Limiting the bandwidth of a migration"):
            domain.migrateSetMaxSpeed(mib_per_second(self._bandwidth.of(record)), 0)
        self._bandwidth.divide()
        return Done()

    def divide(self) -> None:
        """Has what runs keep to the limit of all together, which has changed."""
        self._bandwidth.divide_anew()

    def stretch(self, operation: str, guest: str, downtime_ms: int) -> Done:
        """Lets a migration that runs have a longer pause; it never gets a shorter one."""
        domain = self._copying(operation, guest)
        record = self._record(operation, guest)
        if domain is None or record is None or record.downtime_ms >= downtime_ms:
            return Done(changed=False)
        with self._hypervisor.calling("Stretching the pause of a migration"):
            domain.migrateSetMaxDowntime(downtime_ms, 0)
        self._amend(operation, guest, downtime_ms=downtime_ms)
        return Done()

    def _copying(self, operation: str, guest: str) -> Any:
        """The domain of a migration that still copies; None of one in its pause, when QEMU answers nobody."""
        record = self._record(operation, guest)
        domain = self._hypervisor.find(guest)
        if record is None or domain is None or self._paused(record) is not None or not self._job_runs(domain):
            return None
        return domain

    def _amend(self, operation: str, guest: str, **values: int) -> Record | None:
        """Notes something of a migration that is still active; None where it has ended meanwhile."""
        with self._lock:
            record = self._record(operation, guest)
            if record is None or record.state != "active":
                return None
            record = msgspec.structs.replace(record, **values)
            update(places(self._runtime, operation).directory, record)
            return record

    def leaves_here(self, operation: str, guest: str) -> bool:
        """Whether this host is the source of the operation's migration of a guest."""
        return self._record(operation, guest) is not None

    def _record(self, operation: str, guest: str) -> Record | None:
        record = load(places(self._runtime, operation).directory)
        return record if record is not None and record.guest == guest else None

    def _current(self, operation: str, guest: str) -> Record | None:
        """The record, brought up to date with what libvirt says."""
        record = self._record(operation, guest)
        if record is None or record.state != "active":
            return record
        thread = self._threads.get(operation)
        domain = self._hypervisor.find(guest)
        if thread is not None and thread.is_alive():
            return self._progress(record, domain) if domain is not None else record
        # The thread may have ended, and written, in between.
        record = self._record(operation, guest) or record
        if record.state == "active":
            record = self._find_out(record, domain, None)
            update(places(self._runtime, operation).directory, record)
        return record

    def _run(self, domain: Any, wanted: StartMigration, here: Places, record: Record) -> None:
        error: str | None = None
        try:
            uri = f"qemu+unix:///system?socket={here.control}"
            libvirt, bandwidth, memory = self._hypervisor.libvirt, self._bandwidth.of(record), way(here.directory)
            asked = parameters(libvirt, domain, wanted, memory, bandwidth)
            domain.migrateToURI3(uri, asked, flags(libvirt, wanted, memory))
        except self._hypervisor.libvirt.libvirtError as problem:
            error = str(problem.get_error_message() or problem)
        # An error may mean that only the connection to libvirt broke: its job may go on, or have succeeded.
        while True:
            record = self._record(record.operation, record.guest) or record
            try:
                found = self._find_out(record, self._hypervisor.find(record.guest), error)
            except Problem:
                found = record
            if found.state != "active":
                with self._lock:
                    update(here.directory, found)
                self._bandwidth.divide()
                return
            time.sleep(0.5)

    def _find_out(self, record: Record, domain: Any, error: str | None) -> Record:
        """How a migration has ended whose call has returned, or whose caller has died: as libvirt shows it."""
        replace = msgspec.structs.replace
        if domain is not None and self._job_runs(domain):
            return self._progress(record, domain)
        record = replace(record, paused=self._paused(record), ended=time.monotonic())
        if domain is None:
            # A transient guest leaves nothing behind when it has gone.
            return replace(record, state="completed", statistics=self._final(record, None))
        with self._hypervisor.calling("Asking for a guest's state"):
            state, reason = domain.state()
        if state == SHUTOFF and (reason == SHUTOFF_MIGRATED or record.conceded):
            return replace(record, state="completed", statistics=self._final(record, domain))
        if error is None and time.monotonic() - record.started < GRACE_S:
            return replace(record, ended=None)
        if state == SHUTOFF:
            error = error or f"the guest is off (reason {reason}), and not because it was migrated"
        return replace(record, state="failed", error=error or "libvirt ended it; journalctl -u libvirtd may say why")

    def _progress(self, record: Record, domain: Any) -> Record:
        paused = self._paused(record)
        if paused is not None:
            # Nothing new is to be learnt, and QEMU's monitor is needed for the switchover.
            return msgspec.structs.replace(record, paused=paused)
        known = {**record.statistics, **self._statistics.running(record, domain)}
        return msgspec.structs.replace(record, statistics=known)

    def _final(self, record: Record, domain: Any) -> dict[str, float]:
        return {**record.statistics, **self._statistics.completed(record, domain)}

    def _paused(self, record: Record) -> float | None:
        return self._hypervisor.events.paused_for_migration(record.uuid, record.started) or record.paused

    def _job_runs(self, domain: Any) -> bool:
        return domains.job_runs(self._hypervisor, domain)

    def _ready(self, guest: str) -> Any:
        domain = self._hypervisor.running(guest)
        if self._job_runs(domain):
            raise Problem(
                "guest-migrating",
                f"libvirt is at another job of guest {guest}",
                f"Look with: virsh domjobinfo {guest}",
                exit=Exit.REFUSED,
            )
        return domain

    def _limit_pause(self, domain: Any, wanted: StartMigration) -> None:
        # Before the start, so that it holds from the first round on.
        with self._hypervisor.calling("Setting the longest pause"):
            domain.migrateSetMaxDowntime(wanted.downtime_ms, 0)
