"""What an agent is told about its host: /etc/vferry/agent.toml."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, field

from vferry.model.host import CPU_SHARE, MigrationEndpoint, Network
from vferry.model.settings import read_settings

DEFAULT_FILE = Path("/etc/vferry/agent.toml")
DEFAULT_DIRECTORY = Path("/var/lib/vferry")
DEFAULT_SOCKET = "/run/vferry/agent.sock"
HOST_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"

EXAMPLE = """\
name = "host1"

[migration]
address = "10.8.0.1"
ports = "49200-49215"
slots = 2
cpu_share = 0.5

[agent]
listen = "10.8.0.1:7443"
socket = "/run/vferry/agent.sock"

[networks.physnet1]
pf = "enp1s0"
bridge = "br0"
"""


class Listen(Struct, frozen=True, kw_only=True):
    """An IP address and a TCP port."""

    address: str
    port: int


class AgentConfiguration(Struct, frozen=True, kw_only=True):
    """An agent's settings. `listen` is None when only the socket is served."""

    name: str
    migration: MigrationEndpoint
    cpu_share: float = CPU_SHARE
    """Of the host's processors: all gateways together, but at least one processor."""
    listen: Listen | None = None
    socket: Path = Path(DEFAULT_SOCKET)
    networks: dict[str, Network] = field(default_factory=dict)


def read_configuration(path: Path = DEFAULT_FILE) -> AgentConfiguration:
    """Problems: ``configuration-missing``, ``configuration-invalid``, with file and line."""
    written = read_settings(path, _File, EXAMPLE)
    return AgentConfiguration(
        name=written.name,
        migration=MigrationEndpoint(
            address=written.migration.address,
            ports=_port_range(written.migration.ports),
            slots=written.migration.slots,
            bandwidth=written.migration.bandwidth,
        ),
        cpu_share=written.migration.cpu_share,
        listen=_listen(written.agent.listen) if written.agent.listen else None,
        socket=Path(written.agent.socket),
        networks={name: each.network for name, each in written.networks.items()},
    )


def least_bandwidth(slots: int) -> int:
    """Bytes per second for all migrations together: libvirt gives none less than 1 MiB/s."""
    return slots << 20


class _Migration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    address: str
    ports: str
    slots: Annotated[int, Meta(ge=1, le=64)] = 2
    cpu_share: Annotated[float, Meta(gt=0, le=1)] = CPU_SHARE
    bandwidth: Annotated[int, Meta(ge=1)] | None = None

    def __post_init__(self) -> None:
        _check_address("address", self.address)
        first, last = _port_range(self.ports)
        if last - first + 1 < self.slots:
            raise ValueError(f"ports: {self.ports} has fewer ports than there are slots ({self.slots})")
        if self.bandwidth is not None and self.bandwidth < least_bandwidth(self.slots):
            raise ValueError(f"bandwidth: {self.bandwidth} is less than 1 MiB/s for each of {self.slots} slots")


class _Agent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: str | None = None
    socket: str = DEFAULT_SOCKET

    def __post_init__(self) -> None:
        if self.listen is not None:
            _listen(self.listen)
        if not self.socket.startswith("/"):
            raise ValueError(f"socket: {self.socket!r} is not an absolute path")


class _Network(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pf: str | tuple[str, ...]
    bridge: str | None = None

    def __post_init__(self) -> None:
        if not self._pfs:
            raise ValueError("pf: there is none in []")
        for key, value in (*(("pf", pf) for pf in self._pfs), ("bridge", self.bridge or "-")):
            if not re.fullmatch(r"[^\s/:]{1,15}", value):
                raise ValueError(f"{key}: {value!r} is not an interface's name")
        if self.bridge == "":
            raise ValueError("bridge: '' is not an interface's name; leave it out where there is none")

    @property
    def _pfs(self) -> tuple[str, ...]:
        return (self.pf,) if isinstance(self.pf, str) else self.pf

    @property
    def network(self) -> Network:
        pf, *more = self._pfs
        return Network(pf=pf, more_pfs=tuple(more), bridge=self.bridge)


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    migration: _Migration
    agent: _Agent = _Agent()
    networks: dict[str, _Network] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(HOST_NAME, self.name):
            raise ValueError(f"name: {self.name!r} is not a host's name (a-z, 0-9 and -, at most 63)")


def _check_address(key: str, value: str) -> None:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(f"{key}: {value!r} is not an IP address") from None


def _port_range(value: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})\s*-\s*(\d{1,5})", value)
    if not found:
        raise ValueError(f"ports: {value!r} is not a range of ports")
    first, last = int(found[1]), int(found[2])
    if not 1024 <= first <= last <= 65535:
        raise ValueError(f"ports: {value} is empty or outside 1024-65535")
    return first, last


def _listen(value: str) -> Listen:
    found = re.fullmatch(r"\[?([^\]]+)\]?:(\d{1,5})", value)
    if not found or not 1 <= int(found[2]) <= 65535:
        raise ValueError(f"listen: {value!r} is not an address and a port")
    _check_address("listen", found[1])
    return Listen(address=found[1], port=int(found[2]))
