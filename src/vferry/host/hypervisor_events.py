"""What libvirt tells without being asked: kept as it arrives, so that an operation can wait for it."""

import threading
import time
from collections.abc import Callable
from typing import Any

SUSPENDED = 3
RESUMED = 4
STOPPED = 5
SUSPENDED_MIGRATED = 1
"""virDomainEventType and virDomainEventSuspendedDetailType: part of libvirt's ABI, so they never change."""


class Events:
    """The events of one connection. Libvirt's event thread writes, the threads of operations read and wait.

    Times are `time.monotonic()`, which all processes of one boot share.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._paused: dict[str, float] = {}
        self._unplugged: dict[tuple[str, str], bool | None] = {}
        self._jobs: dict[str, dict[str, Any]] = {}
        self._resumed: dict[str, Callable[[], None]] = {}
        self._stopped: Callable[[], None] | None = None

    def register(self, libvirt: Any, connection: Any) -> None:
        """Asks a new connection for the events that operations wait for."""
        for event, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self.on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self.on_removed),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, self.on_removal_failed),
            (libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self.on_job_completed),
        ):
            connection.domainEventRegisterAny(None, event, callback, None)
        # Nobody has told which guests stopped while there was no connection.
        self._start(self._stopped, "connected")

    def on_lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: Any) -> None:
        uuid = domain.UUIDString()
        with self._changed:
            if event == SUSPENDED and detail == SUSPENDED_MIGRATED:
                self._paused[uuid] = time.monotonic()
            elif event == RESUMED:
                self._paused.pop(uuid, None)
                self._start(self._resumed.pop(domain.name(), None), f"resumed-{domain.name()}")
            elif event == STOPPED:
                self._start(self._stopped, f"stopped-{domain.name()}")
            self._changed.notify_all()

    def on_removed(self, _connection: Any, domain: Any, alias: str, _opaque: Any) -> None:
        self._note_unplug(domain.UUIDString(), alias, gone=True)

    def on_removal_failed(self, _connection: Any, domain: Any, alias: str, _opaque: Any) -> None:
        self._note_unplug(domain.UUIDString(), alias, gone=False)

    def on_job_completed(self, _connection: Any, domain: Any, statistics: dict[str, Any], _opaque: Any) -> None:
        with self._changed:
            self._jobs[domain.UUIDString()] = dict(statistics)
            self._changed.notify_all()

    def when_resumed(self, guest: str, work: Callable[[], None]) -> None:
        """Has something done in a thread once a guest goes on on this host; in place of what was wanted before."""
        with self._changed:
            self._resumed[guest] = work

    def when_stopped(self, work: Callable[[], None]) -> None:
        """Has something done in a thread each time that a guest stops on this host, and after each connection."""
        self._stopped = work

    def paused_for_migration(self, uuid: str, since: float) -> float | None:
        """When a guest was last stopped for its switchover, if that was after `since` and it has not resumed."""
        with self._changed:
            at = self._paused.get(uuid)
        return at if at is not None and at >= since else None

    def completed_job(self, uuid: str) -> dict[str, Any] | None:
        """The statistics of a guest's last completed job."""
        with self._changed:
            return self._jobs.get(uuid)

    def forget_job(self, uuid: str) -> None:
        """Before a job starts: what is found afterwards is its own."""
        with self._changed:
            self._jobs.pop(uuid, None)
            self._paused.pop(uuid, None)

    def expect_unplug(self, uuid: str, alias: str) -> None:
        """Before a device is asked back: an answer to an earlier request does not count."""
        with self._changed:
            self._unplugged[(uuid, alias)] = None

    def unplug_is_open(self, uuid: str, alias: str) -> bool:
        """Whether a device was asked back and no answer was heard: the guest may still let go of it."""
        with self._changed:
            return self._unplugged.get((uuid, alias), False) is None

    def wait_for_unplug(self, uuid: str, alias: str, timeout_s: float) -> bool | None:
        """True when the device is gone, False when the guest refused, None when neither was heard in time."""
        return self._wait(lambda: self._unplugged.get((uuid, alias)), timeout_s)

    def _start(self, work: Callable[[], None] | None, name: str) -> None:
        """Not in libvirt's thread, which has to tell the others meanwhile."""
        if work:
            threading.Thread(target=work, name=name, daemon=True).start()

    def _note_unplug(self, uuid: str, alias: str, *, gone: bool) -> None:
        with self._changed:
            self._unplugged[(uuid, alias)] = gone
            self._changed.notify_all()

    def _wait(self, look: Callable[[], bool | None], timeout_s: float) -> bool | None:
        with self._changed:
            self._changed.wait_for(lambda: look() is not None, timeout_s)
            return look()
