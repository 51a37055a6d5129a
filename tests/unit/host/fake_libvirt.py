"""A stand-in for python3-libvirt, as far as vferry uses it: hosts with guests in memory. No QEMU, no threads."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

RUNNING, PAUSED, SHUTOFF = 1, 3, 5
CAPABILITIES = """<capabilities><host><secmodel><model>apparmor</model></secmodel><secmodel><model>dac</model>
<baselabel type='kvm'>+{uid}:+{gid}</baselabel></secmodel></host></capabilities>"""

ADDED = "<input type='keyboard' bus='ps2'/><audio id='1' type='none'/><watchdog model='itco' action='reset'/>"
"""What libvirt 11.3 adds to a q35 by itself, as it was seen; without it in XML that is asked for as migratable."""


class FakeError(Exception):
    """libvirt.libvirtError."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self._code, self._message = code, message

    def get_error_code(self) -> int:
        return self._code

    def get_error_message(self) -> str:
        return self._message


class FakeLibvirt:
    """The module ``libvirt``: its constants, and `open`."""

    libvirtError = FakeError  # noqa: N815 - libvirt's name
    VIR_ERR_INTERNAL_ERROR = 1
    VIR_ERR_NO_CONNECT = 37
    VIR_ERR_RPC = 39
    VIR_ERR_NO_DOMAIN = 42
    VIR_ERR_OPERATION_INVALID = 55
    VIR_ERR_OPERATION_TIMEOUT = 68
    VIR_ERR_ARGUMENT_UNSUPPORTED = 74
    VIR_ERR_AGENT_UNRESPONSIVE = 86
    VIR_ERR_AGENT_UNSYNCED = 97
    VIR_ERR_AGENT_COMMAND_TIMEOUT = 112
    VIR_ERR_CPU_INCOMPATIBLE = 91
    VIR_ERR_DEVICE_MISSING = 99
    VIR_DOMAIN_EVENT_ID_LIFECYCLE = 0
    VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED = 15
    VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED = 21
    VIR_DOMAIN_EVENT_ID_JOB_COMPLETED = 22
    VIR_DOMAIN_AFFECT_LIVE = 1
    VIR_DOMAIN_XML_SECURE = 1
    VIR_DOMAIN_XML_INACTIVE = 2
    VIR_DOMAIN_XML_MIGRATABLE = 8
    VIR_DOMAIN_JOB_STATS_COMPLETED = 1
    VIR_DOMAIN_UNDEFINE_MANAGED_SAVE = 1
    VIR_DOMAIN_UNDEFINE_KEEP_NVRAM = 8
    VIR_MIGRATE_LIVE = 1
    VIR_MIGRATE_PEER2PEER = 2
    VIR_MIGRATE_PERSIST_DEST = 8
    VIR_MIGRATE_UNDEFINE_SOURCE = 16
    VIR_MIGRATE_AUTO_CONVERGE = 1 << 13
    VIR_MIGRATE_COMPRESSED = 1 << 11
    VIR_MIGRATE_PARALLEL = 1 << 17
    VIR_MIGRATE_TLS = 1 << 16
    VIR_MIGRATE_PARAM_URI = "migrate_uri"
    VIR_MIGRATE_PARAM_LISTEN_ADDRESS = "listen_address"
    VIR_MIGRATE_PARAM_TLS_DESTINATION = "tls.destination"
    VIR_MIGRATE_PARAM_PERSIST_XML = "persistent_xml"
    VIR_MIGRATE_PARAM_DEST_XML = "destination_xml"
    VIR_MIGRATE_PARAM_BANDWIDTH = "bandwidth"
    VIR_MIGRATE_PARAM_COMPRESSION = "compression"
    VIR_MIGRATE_PARAM_COMPRESSION_XBZRLE_CACHE = "compression.xbzrle.cache"
    VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS = "parallel.connections"
    VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE = 1

    def __init__(self, *domains: "FakeDomain", uid: int = 0, gid: int = 0) -> None:
        self.domains: dict[str, FakeDomain] = {}
        self.capabilities = CAPABILITIES.format(uid=uid, gid=gid)
        self.connections: list[FakeConnection] = []
        self.refuses_connections = False
        self.old = False
        """Whether it is libvirt 9.0, in what it knows."""
        self.machine_error = ""
        self.cpu_error = ""
        self.networks: set[str] = set()
        for domain in domains:
            self.add(domain)

    def add(self, domain: "FakeDomain") -> None:
        domain.library = self
        self.domains[domain.name()] = domain

    def open(self, uri: str) -> "FakeConnection":
        if self.refuses_connections:
            raise FakeError(self.VIR_ERR_NO_CONNECT, "Failed to connect socket")
        self.connections.append(FakeConnection(self, uri))
        return self.connections[-1]

    def emit(self, event: int, domain: "FakeDomain", *details: Any) -> None:
        """Tells the newest connection of an event."""
        for connection in self.connections[-1:]:
            callback = connection.callbacks.get(event)
            if callback:
                callback(connection, domain, *details, None)


class FakeConnection:
    def __init__(self, library: FakeLibvirt, uri: str) -> None:
        self.library, self.uri = library, uri
        self.alive = True
        self.callbacks: dict[int, Callable[..., None]] = {}

    def isAlive(self) -> int:  # noqa: N802
        return int(self.alive)

    def getVersion(self) -> int:  # noqa: N802
        return 11_001_003

    def getLibVersion(self) -> int:  # noqa: N802
        return 11_003_000

    def getCapabilities(self) -> str:  # noqa: N802
        return self.library.capabilities

    def domainEventRegisterAny(self, _domain: Any, event: int, callback: Any, _opaque: Any) -> int:  # noqa: N802
        self.callbacks[event] = callback
        return event

    def listAllDomains(self, _flags: int) -> list["FakeDomain"]:  # noqa: N802
        return list(self.library.domains.values())

    def lookupByName(self, name: str) -> "FakeDomain":  # noqa: N802
        if name not in self.library.domains:
            raise FakeError(self.library.VIR_ERR_NO_DOMAIN, f"Domain not found: no domain with matching name '{name}'")
        return self.library.domains[name]

    def defineXMLFlags(self, xml: str, _flags: int) -> "FakeDomain":  # noqa: N802
        name = re.search("<name>(.*)</name>", xml)
        assert name
        if "itco" in xml and self.library.old:
            raise FakeError(FakeLibvirt.VIR_ERR_INTERNAL_ERROR, "unknown watchdog model 'itco'")
        domain = self.library.domains.get(name[1])
        if domain is None:
            domain = FakeDomain(persistent=xml)
            domain.library = self.library
            self.library.domains[name[1]] = domain
        domain.persistent_xml = xml
        return domain

    def networkLookupByName(self, name: str) -> "FakeConnection":  # noqa: N802
        if name not in self.library.networks:
            raise FakeError(43, "Network not found")
        return self

    def isActive(self) -> int:  # noqa: N802
        return 1

    def domainListGetStats(  # noqa: N802
        self, domains: list["FakeDomain"], _stats: int, _flags: int
    ) -> list[tuple["FakeDomain", dict[str, int]]]:
        return [(domain, domain.dirty_rate()) for domain in domains]

    def getDomainCapabilities(self, *_arguments: Any) -> str:  # noqa: N802
        if self.library.machine_error:
            raise FakeError(8, self.library.machine_error)
        return "<domainCapabilities/>"

    def compareHypervisorCPU(self, *_arguments: Any) -> int:  # noqa: N802
        if self.library.cpu_error:
            raise FakeError(self.library.VIR_ERR_CPU_INCOMPATIBLE, self.library.cpu_error)
        return 2


class FakeBalloon:
    """What a guest's balloon holds of its memory, in KiB: it moves by a step each time that somebody looks."""

    def __init__(self, memory: int, free: int) -> None:
        self.memory, self.free = memory, free
        self.actual = self.target = self.least = memory
        self.step = memory
        """0: it stands."""
        self.period = 0
        self.silent = False
        """Whether the guest does not say what it has free."""
        self.refuses: Callable[[str, int], bool] = lambda _name, _value: False
        """Whether libvirt does not do what it is asked to."""
        self.on_move: Callable[[], None] = lambda: None
        """What happens when somebody looks."""

    def look(self) -> dict[str, int]:
        way = self.target - self.actual
        self.actual += max(-self.step, min(self.step, way))
        self.least = min(self.least, self.actual)
        self.on_move()
        told = {"actual": self.actual, "rss": self.memory}
        if self.period and not self.silent:
            told |= {"unused": self.free, "last_update": int(time.time()) + 1}
        return told


class FakeDomain:
    """A guest: `live` is its XML while it runs, `persistent` its definition."""

    def __init__(
        self, *, live: str | None = None, persistent: str | None = None, state: tuple[int, int] | None = None
    ) -> None:
        self.live_xml, self.persistent_xml = live, persistent
        self.state_ = state or ((RUNNING, 1) if live else (SHUTOFF, 1))
        self.library = FakeLibvirt.__new__(FakeLibvirt)  # until a library is given the guest
        self.run = 7
        self.lets_go: bool | None = True
        """Whether it gives devices back when asked; None: it does not answer."""
        self.agent: Callable[[dict[str, Any]], Any] | None = None
        self.job: dict[str, Any] | None = None
        self.completed_job: dict[str, Any] = {}
        self.query_migrate: dict[str, Any] = {}
        """What its QEMU answers."""
        self.migrate: Callable[[str, dict[str, Any], int], None] | None = None
        self.calls: list[tuple[Any, ...]] = []
        self.balloon = FakeBalloon(262144, 131072)
        self.dirty_rates: list[dict[str, int]] = []
        """What it answers, one after the other, to who asks for its dirty rate; the last again and again."""

    def name(self) -> str:
        found = re.search("<name>(.*)</name>", self.live_xml or self.persistent_xml or "")
        assert found
        return found[1]

    def ID(self) -> int:  # noqa: N802
        return self.run if self.live_xml else -1

    def UUIDString(self) -> str:  # noqa: N802
        return f"uuid-of-{self.name()}"

    def state(self) -> list[int]:
        return list(self.state_)

    def isActive(self) -> int:  # noqa: N802
        return int(self.live_xml is not None)

    def isPersistent(self) -> int:  # noqa: N802
        return int(self.persistent_xml is not None)

    def XMLDesc(self, flags: int) -> str:  # noqa: N802
        inactive = flags & FakeLibvirt.VIR_DOMAIN_XML_INACTIVE or self.live_xml is None
        xml = self.persistent_xml if inactive else self.live_xml
        assert xml is not None
        return xml if flags & FakeLibvirt.VIR_DOMAIN_XML_MIGRATABLE else xml.replace("</devices>", f"{ADDED}</devices>")

    def attachDeviceFlags(self, xml: str, flags: int) -> None:  # noqa: N802
        self.calls.append(("attach", flags))
        assert self.live_xml is not None
        self.live_xml = self.live_xml.replace("</devices>", f"{xml}</devices>")

    def detachDeviceAlias(self, alias: str, flags: int) -> None:  # noqa: N802
        self.calls.append(("detach", alias, flags))
        if self.lets_go is None:
            return
        if self.lets_go:
            assert self.live_xml is not None
            device = rf"<(interface|hostdev)\b(?:(?!</\1>).)*<alias name=.{alias}.\s*/>.*?</\1>"
            self.live_xml = re.sub(device, "", self.live_xml, flags=re.DOTALL)
        event = "DEVICE_REMOVED" if self.lets_go else "DEVICE_REMOVAL_FAILED"
        self.library.emit(getattr(self.library, f"VIR_DOMAIN_EVENT_ID_{event}"), self, alias)

    def undefineFlags(self, flags: int) -> None:  # noqa: N802
        self.calls.append(("undefine", flags))
        del self.library.domains[self.name()]

    def resume(self) -> None:
        self.state_ = (RUNNING, 5)

    def destroyFlags(self, _flags: int) -> None:  # noqa: N802
        self.calls.append(("destroy",))
        self.live_xml, self.state_ = None, (SHUTOFF, 2)
        if self.persistent_xml is None:
            # Only the definition had its name.
            self.library.domains = {k: d for k, d in self.library.domains.items() if d is not self}

    def migrateSetMaxDowntime(self, downtime_ms: int, _flags: int) -> None:  # noqa: N802
        self.calls.append(("max-downtime", downtime_ms))

    def migrateSetMaxSpeed(self, bandwidth_mib: int, _flags: int) -> None:  # noqa: N802
        self.calls.append(("max-speed", bandwidth_mib))

    def migrateToURI3(self, uri: str, parameters: dict[str, Any], flags: int) -> None:  # noqa: N802
        assert self.migrate is not None
        self.migrate(uri, parameters, flags)

    def jobInfo(self) -> list[int]:  # noqa: N802
        if self.live_xml is None:
            raise FakeError(self.library.VIR_ERR_OPERATION_INVALID, "domain is not running")
        return [2 if self.job is not None else 0, *[0] * 11]

    def jobStats(self, flags: int = 0) -> dict[str, Any]:  # noqa: N802
        return dict(self.completed_job if flags else self.job or {})

    def maxMemory(self) -> int:  # noqa: N802
        return self.balloon.memory

    def memoryStats(self) -> dict[str, int]:  # noqa: N802
        self._refuse("memoryStats", 0)
        return self.balloon.look()

    def setMemoryFlags(self, memory: int, flags: int) -> None:  # noqa: N802
        assert flags == self.library.VIR_DOMAIN_AFFECT_LIVE
        self._refuse("setMemoryFlags", memory)
        self.balloon.target = memory

    def setMemoryStatsPeriod(self, seconds: int, flags: int) -> None:  # noqa: N802
        assert flags == self.library.VIR_DOMAIN_AFFECT_LIVE
        self._refuse("setMemoryStatsPeriod", seconds)
        self.balloon.period = seconds

    def _refuse(self, name: str, value: int) -> None:
        if self.live_xml is None or self.balloon.refuses(name, value):
            raise FakeError(self.library.VIR_ERR_OPERATION_INVALID, f"no {name} now")

    def startDirtyRateCalc(self, seconds: int, _flags: int) -> int:  # noqa: N802
        self.calls.append(("dirty-rate", seconds))
        if not self.dirty_rates:
            raise FakeError(self.library.VIR_ERR_ARGUMENT_UNSUPPORTED, "QEMU does not support calculating dirty rate")
        return 0

    def dirty_rate(self) -> dict[str, int]:
        return self.dirty_rates.pop(0) if len(self.dirty_rates) > 1 else self.dirty_rates[0]

    def abortJob(self) -> None:  # noqa: N802
        self.calls.append(("abort",))
        if self.job is None:
            raise FakeError(self.library.VIR_ERR_OPERATION_INVALID, "no job is active on the domain")
        self.job = None


class FakeAgents:
    """The module ``libvirt_qemu``: hands a command to the domain's `agent`, which returns text or raises."""

    def __init__(self) -> None:
        self.callbacks: dict[str, Callable[..., None]] = {}

    def qemuMonitorEventRegister(  # noqa: N802
        self, _connection: FakeConnection, _domain: None, event: str, callback: Callable[..., None], _opaque: None
    ) -> int:
        self.callbacks[event] = callback
        return 1

    def qemuMonitorCommand(self, domain: FakeDomain, command: str, _flags: int) -> str:  # noqa: N802
        assert json.loads(command) == {"execute": "query-migrate"}
        if domain.live_xml is None:
            raise FakeError(FakeLibvirt.VIR_ERR_OPERATION_INVALID, "domain is not running")
        return json.dumps({"return": domain.query_migrate, "id": "libvirt-1"})

    def qemuAgentCommand(self, domain: FakeDomain, command: str, _timeout: int, _flags: int) -> str:  # noqa: N802
        if domain.agent is None:
            raise FakeError(FakeLibvirt.VIR_ERR_AGENT_UNRESPONSIVE, "Guest agent is not responding")
        answer = domain.agent(json.loads(command))
        return answer if isinstance(answer, str) else json.dumps({"return": answer})
