"""The state of a guest's devices: whether QEMU migrates them, how much there is, and how much of it it has sent."""

import contextlib
import json
import threading
from pathlib import Path
from typing import Any

from vferry.host.api import Blockers
from vferry.host.hypervisor import Hypervisor
from vferry.host.vfio_state import read_state

IDLE = (None, "none", "completed", "cancelled", "failed")
"""Of QEMU's words for how its migration stands: while it migrates its devices are left alone."""


def read_blockers(hypervisor: Hypervisor, guest: str, root: Path = Path("/")) -> Blockers:
    """Problems ``guest-unknown``, ``guest-off``, ``libvirt-failed``."""
    domain = hypervisor.running(guest)
    with hypervisor.calling(f"Asking QEMU whether {guest} can migrate"):
        said = hypervisor.query_migrate(domain)
    reasons = tuple(str(reason) for reason in said.get("blocked-reasons", ()))
    return Blockers(reasons=reasons, state=read_state(root, guest) if said.get("status") in IDLE else None)


ANSWER_S = 1.0
"""How long an answer that is on its way is waited for."""


class DeviceState:
    """How many bytes of VFIO devices' state QEMU has sent, for the guests that it was told to expect.

    libvirt has no such figure, QEMU counts to the end of the pause, and is ended soon after: so it is asked when it
    says that it has sent everything.
    """

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor
        self._lock = threading.Lock()
        self._sent: dict[str, int | None] = {}
        self._asking: dict[str, threading.Thread] = {}
        self._connection: Any = None

    def expect(self, uuid: str) -> None:
        """Before a guest's migration starts."""
        with self._lock:
            self._sent[uuid] = None
            self._asking.pop(uuid, None)
        connection, library = self._hypervisor.connection(), self._hypervisor.qemu_library
        if connection is not self._connection:
            # Without the event the figure is not known, and that is all.
            with contextlib.suppress(self._hypervisor.libvirt.libvirtError):
                library.qemuMonitorEventRegister(connection, None, "MIGRATION", self.on_migration, None)
            self._connection = connection

    def sent(self, uuid: str) -> int | None:
        """None where it is not known."""
        with self._lock:
            asking = self._asking.get(uuid)
        if asking is not None:
            asking.join(ANSWER_S)
        with self._lock:
            return self._sent.get(uuid)

    def on_migration(
        self, _connection: Any, domain: Any, _event: str, _seconds: int, _micros: int, details: str, _opaque: Any
    ) -> None:
        """libvirt's event thread: it must not wait for an answer."""
        uuid = domain.UUIDString()
        with self._lock:
            if uuid in self._sent and json.loads(details).get("status") == "completed":
                asking = self._asking[uuid] = threading.Thread(target=self._ask, args=(domain,), daemon=True)
                asking.start()

    def _ask(self, domain: Any) -> None:
        # It may be gone by now.
        with contextlib.suppress(self._hypervisor.libvirt.libvirtError):
            said = self._hypervisor.query_migrate(domain)
            if "vfio" in said:
                with self._lock:
                    self._sent[domain.UUIDString()] = int(said["vfio"]["transferred"])
