"""The connection to libvirt: kept, renewed when it broke, its errors turned into problems.

Calls block: they are made from threads. The binding is the distribution's, imported when it is first needed.
"""

import contextlib
import importlib
import json
import threading
from collections.abc import Iterator
from typing import Any

from vferry.host.hypervisor_events import Events
from vferry.model.problem import Exit, Problem

URI = "qemu:///system"

# libvirt's error, our code, what to do.
KNOWN = {
    "VIR_ERR_NO_DOMAIN": ("guest-unknown", "Look with: vferry guest list"),
    "VIR_ERR_AGENT_UNRESPONSIVE": ("guest-agent-silent", "Start qemu-guest-agent in the guest"),
    "VIR_ERR_AGENT_UNSYNCED": ("guest-agent-silent", "Restart qemu-guest-agent in the guest"),
    "VIR_ERR_AGENT_COMMAND_TIMEOUT": ("guest-agent-silent", "Look whether the guest is overloaded"),
    "VIR_ERR_OPERATION_TIMEOUT": ("guest-busy", "Another job holds the guest: virsh domjobinfo GUEST"),
    "VIR_ERR_NO_CONNECT": ("libvirt-unreachable", "Look with: systemctl status libvirtd"),
    "VIR_ERR_RPC": ("libvirt-unreachable", "Look with: systemctl status libvirtd"),
}


class Hypervisor:
    """One host's libvirt. Problem ``libvirt-unreachable`` from every call when it does not answer."""

    def __init__(self, uri: str = URI, *, library: Any = None, agent_library: Any = None) -> None:
        """`library` and `agent_library` stand in for the modules ``libvirt`` and ``libvirt_qemu`` in tests."""
        self.uri = uri
        self.events = Events()
        self._library = library
        self._qemu_library = agent_library
        self._connection: Any = None
        self._lock = threading.Lock()

    @property
    def libvirt(self) -> Any:
        """The binding's module, for its constants."""
        if self._library is None:
            self._library = _load("libvirt")
            _start_event_loop(self._library)
        return self._library

    @property
    def qemu_library(self) -> Any:
        """The binding's module for what only QEMU has."""
        if self._qemu_library is None:
            self._qemu_library = _load("libvirt_qemu")
        return self._qemu_library

    def connection(self) -> Any:
        """The open connection, a new one when the old one broke."""
        libvirt = self.libvirt
        with self._lock:
            if self._connection is None or not self._connection.isAlive():
                with self.calling("Connecting to libvirt", code="libvirt-unreachable"):
                    self._connection = libvirt.open(self.uri)
                    self.events.register(libvirt, self._connection)
            return self._connection

    def domain(self, guest: str) -> Any:
        """A guest's domain. Problem ``guest-unknown``."""
        domain = self.find(guest)
        if domain is None:
            raise Problem("guest-unknown", f"This host defines no guest {guest}", KNOWN["VIR_ERR_NO_DOMAIN"][1])
        return domain

    def running(self, guest: str) -> Any:
        """A guest's domain, running or paused. Problems ``guest-unknown``, ``guest-off``."""
        domain = self.domain(guest)
        if not domain.isActive():
            raise Problem("guest-off", f"Guest {guest} does not run here", f"Look with: vferry guest show {guest}")
        return domain

    def find(self, guest: str) -> Any:
        """A guest's domain, None where there is none."""
        connection = self.connection()
        try:
            return connection.lookupByName(guest)
        except self.libvirt.libvirtError as error:
            if error.get_error_code() == self.libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise self.problem(error, f"Looking for guest {guest}") from error

    def domains(self) -> list[Any]:
        with self.calling("Listing the guests"):
            domains: list[Any] = self.connection().listAllDomains(0)
        return domains

    def agent_command(self, domain: Any, command: str, timeout_s: int) -> str:
        """Sends one command to a guest's agent; libvirt's own error passes, for the caller to read."""
        answer: str = self.qemu_library.qemuAgentCommand(domain, command, timeout_s, 0)
        return answer

    def query_migrate(self, domain: Any) -> dict[str, Any]:
        """What a running guest's QEMU says of its migration, be there one or none; libvirt's own error passes."""
        asked = json.dumps({"execute": "query-migrate"})
        answer: dict[str, Any] = json.loads(self.qemu_library.qemuMonitorCommand(domain, asked, 0))["return"]
        return answer

    @contextlib.contextmanager
    def calling(self, what: str, *, code: str = "libvirt-failed") -> Iterator[None]:
        """Turns an error of libvirt's into a problem: `code`, unless libvirt's own says more."""
        try:
            yield
        except self.libvirt.libvirtError as error:
            raise self.problem(error, what, code) from error

    def problem(self, error: Any, what: str, code: str = "libvirt-failed") -> Problem:
        number = error.get_error_code()
        for name, (known, remedy) in KNOWN.items():
            if number == getattr(self.libvirt, name, None):
                return Problem(known, f"{what}: {_message(error)}", remedy, exit=Exit.REFUSED)
        remedy = (
            KNOWN["VIR_ERR_NO_CONNECT"][1] if code == "libvirt-unreachable" else "Look with: journalctl -u libvirtd"
        )
        return Problem(code, f"{what}: {_message(error)}", remedy, exit=Exit.REFUSED, libvirt_code=number)


def _message(error: Any) -> str:
    return str(error.get_error_message() or error).strip().rstrip(".")


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Problem(
            "libvirt-missing",
            f"Python cannot import {name}: {error}",
            "Install the distribution's python3-libvirt on this host",
            exit=Exit.REFUSED,
        ) from error


def _start_event_loop(libvirt: Any) -> None:
    # The binding wants the loop registered before the first connection; it serves all of them.
    libvirt.virEventRegisterDefaultImpl()
    # Errors come as exceptions: libvirt shall not print them as well.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, name="libvirt-events", daemon=True).start()
