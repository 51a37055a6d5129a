"""The gateways of migrations on this host: a process and a directory for each operation."""

import grp
import os
import pwd
import re
import secrets
import shutil
import socket
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
from msgspec import Struct, structs

from vferry.host import gateways_process as process
from vferry.host.api import DirectMemory, Done, GatewayStatistics, Receiving, StartReceiving, StartSending
from vferry.host.durable import write_durably
from vferry.host.guest_memory import resident_places
from vferry.host.hypervisor import Hypervisor
from vferry.host.qemu_tls import name_shown
from vferry.model.address import with_port
from vferry.model.compression import Compressed
from vferry.model.host import MigrationEndpoint
from vferry.model.problem import Exit, Problem

RUNTIME = Path("/run/vferry")
LIBVIRT_SOCKET = "/run/libvirt/libvirt-sock"
OPERATION_ID = re.compile(r"[a-z0-9-]{1,40}")
QEMU_USERS = (("libvirt-qemu", "kvm"), ("libvirt-qemu", "libvirt-qemu"), ("qemu", "qemu"))


class Places(Struct, frozen=True):
    """The files of one operation. The sockets have the same paths on both hosts: libvirt passes one URI to both."""

    directory: Path

    @property
    def control(self) -> Path:
        """Leads to the destination's libvirt: root's alone."""
        return self.directory / "control" / "libvirt.sock"

    @property
    def memory(self) -> Path:
        """QEMU's stream. QEMU makes it at the destination and opens it at the source: its directory is QEMU's."""
        return self.directory / "memory" / "qemu.sock"

    @property
    def token(self) -> Path:
        return self.directory / "token"


def places(runtime: Path, operation: str) -> Places:
    """Where an operation's files are. Problem ``operation-invalid``, as the id becomes a path."""
    if not OPERATION_ID.fullmatch(operation):
        raise Problem("operation-invalid", f"{operation!r} is not an operation's id", "Use up to 40 of a-z, 0-9 and -")
    return Places(runtime / operation)


class Gateways:
    """Starts, finds again and stops gateways. One call at a time, so that two do not take the same port."""

    def __init__(
        self,
        endpoint: MigrationEndpoint,
        hypervisor: Hypervisor,
        pki: Path,
        runtime: Path = RUNTIME,
        confined: Sequence[str] = (),
        root: Path = Path("/"),
    ) -> None:
        """`confined` is what starts each of them within its share of the processors (`gateways_cpu`)."""
        self._root = root
        self._endpoint = endpoint
        self._hypervisor = hypervisor
        self._pki = pki
        self._runtime = runtime
        self._confined = confined
        self._lock = threading.Lock()

    def receive(self, operation: str, wanted: StartReceiving) -> Receiving:
        """Starts the receiving gateway; one that runs for this peer already gives the same answer."""
        with self._lock:
            here = places(self._runtime, operation)
            running = self._running(here, "receive", wanted.peer)
            if running is None:
                promised = self._promised()
                direct = self._direct(promised) if wanted.direct else None
                self._prepare(here)
                record = process.GatewayRecord(
                    role="receive",
                    peer=wanted.peer,
                    address=self._endpoint.address,
                    port=free_port(self._endpoint, promised | ({direct.port} if direct else set())),
                    direct=direct,
                    token=secrets.token_urlsafe(32),
                    delta_memory=wanted.delta_memory,
                    resident=resident_places(self._hypervisor, self._root) if wanted.resident else (),
                )
                running = self._launch(here, record)
            return Receiving(address=running.address, port=running.port, token=running.token, direct=running.direct)

    def send(self, operation: str, wanted: StartSending) -> Done:
        """Starts the sending gateway; unchanged when it runs already towards the same place."""
        with self._lock:
            here = places(self._runtime, operation)
            record = process.GatewayRecord(role="send", **structs.asdict(wanted))
            running = self._running(here, "send", wanted.peer)
            if running and structs.replace(running, pid=0, started=0) == record:
                return Done(changed=False)
            if running:
                process.stop(here.directory, running)
            self._prepare(here)
            self._launch(here, record)
            return Done()

    def stop(self, operation: str) -> GatewayStatistics:
        """Ends the gateway and gives its figures, also when it ended before; zeros when there was none."""
        with self._lock:
            here = places(self._runtime, operation)
            record = process.load(here.directory)
            if record is not None:
                process.stop(here.directory, record)
            return statistics(here.directory)

    def release(self, operation: str) -> None:
        """Ends the gateway and forgets the operation."""
        self.stop(operation)
        shutil.rmtree(places(self._runtime, operation).directory, ignore_errors=True)

    def _direct(self, promised: set[int]) -> DirectMemory:
        """Where QEMU is to listen, which will only do so when libvirt starts it."""
        name = name_shown(self._root)
        return DirectMemory(port=free_port(self._endpoint, promised), name=name)

    def _promised(self) -> set[int]:
        """The ports on which a QEMU listens that gateways of this host are for, or will."""
        records = map(process.load, self._runtime.iterdir() if self._runtime.is_dir() else ())
        return {record.direct.port for record in records if record and record.role == "receive" and record.direct}

    def _running(self, here: Places, role: str, peer: str) -> process.GatewayRecord | None:
        """The gateway if it runs in this role for this peer; one that does not fit is stopped."""
        record = process.load(here.directory)
        if record is None or not process.alive(record):
            return None
        if (record.role, record.peer) == (role, peer):
            return record
        process.stop(here.directory, record)
        return None

    def _prepare(self, here: Places) -> None:
        """Makes the directories: passable for QEMU, which owns nothing but the one of its memory's socket."""
        user, group = qemu_user(self._hypervisor)
        self._runtime.mkdir(parents=True, exist_ok=True)
        for path, mode in ((here.directory, 0o711), (here.control.parent, 0o700), (here.memory.parent, 0o700)):
            path.mkdir(exist_ok=True)
            path.chmod(mode)
        if os.geteuid() == 0:
            os.chown(here.memory.parent, user, group)
        for path in (here.control, here.memory):
            path.unlink(missing_ok=True)

    def _launch(self, here: Places, record: process.GatewayRecord) -> process.GatewayRecord:
        write_durably(here.token, record.token.encode())
        pki = ["--ca", self._pki / "ca.crt", "--cert", self._pki / "host.crt", "--key", self._pki / "host.key"]
        common = [*pki, "--peer", record.peer, "--token-file", here.token, "--json"]
        where = with_port(record.address, record.port)
        if record.role == "receive":
            wire = ["--listen", where, "--delta-memory", record.delta_memory]
            wire += [word for place in record.resident for word in ("--resident", place)]
            local = ["--connect", f"control=unix:{LIBVIRT_SOCKET}", "--connect", f"memory=unix:{here.memory}"]
        else:
            user, group = qemu_user(self._hypervisor)
            wire = ["--connect", where, "--delta-memory", record.delta_memory]
            wire += ["--codec", record.codec.value, "--streams", record.streams]
            local = ["--listen", f"control=unix:{here.control}", "--listen", f"memory=unix:{here.memory}"]
            local += ["--hold", "control", "--memory-owner", f"{_user_name(user)}:{_group_name(group)}"]
        arguments = [str(argument) for argument in (record.role, *wire, *local, *common)]
        return process.launch(here.directory, record, arguments, self._confined)


def statistics(directory: Path) -> GatewayStatistics:
    """The last figures that a gateway has given. What it calls sent and received is the payload of its wire."""
    for event in reversed(process.events(directory)):
        if event.get("event") in ("end", "stats"):
            return GatewayStatistics(
                wire_bytes=int(event.get("sent_bytes", 0)) + int(event.get("received_bytes", 0)),
                cpu_s=float(event.get("cpu_s", 0.0)),
                cpu_peak=float(event.get("cpu_peak", 0.0)),
                # What is told every second leaves out by which codecs, and the pages.
                compressed=_compressed(event) if event["event"] == "end" else None,
            )
    return GatewayStatistics()


def _compressed(event: dict[str, Any]) -> Compressed | None:
    with suppress(msgspec.ValidationError):
        return msgspec.convert(event.get("compression"), Compressed | None)
    return None


def free_port(endpoint: MigrationEndpoint, promised: Collection[int] = ()) -> int:
    """A port of the range that nobody listens on, nor was promised. Problem ``no-port``."""
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    first, last = endpoint.ports
    for port in range(first, last + 1):
        if port in promised:
            continue
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # A closed connection of an earlier migration, in TIME_WAIT, is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((endpoint.address, port))
            except OSError:
                continue
        return port
    raise Problem(
        "no-port",
        f"No port of {first}-{last} on {endpoint.address} can be listened on",
        "Look with: ss -ltnp; is the address this host's? (migration.address in /etc/vferry/agent.toml)",
        exit=Exit.REFUSED,
    )


def qemu_user(hypervisor: Hypervisor) -> tuple[int, int]:
    """The user and group that libvirt runs QEMU as: what libvirt says, else the distributions' usual ones."""
    with hypervisor.calling("Asking for capabilities"):
        capabilities = ET.fromstring(hypervisor.connection().getCapabilities())  # noqa: S314 - libvirt's own
    for model in capabilities.iterfind("host/secmodel"):
        label = model.findtext("baselabel[@type='kvm']") or model.findtext("baselabel") or ""
        numbers = re.fullmatch(r"\+(\d+):\+(\d+)", label.strip())
        if model.findtext("model") == "dac" and numbers:
            return int(numbers[1]), int(numbers[2])
    for user, group in QEMU_USERS:
        try:
            return pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid
        except KeyError:
            continue
    return 0, 0


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
