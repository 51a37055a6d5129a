"""All that acts on this host, put together once, for the operations that are led to it."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from vferry.host import api, hypervisor_devices, relay_names
from vferry.host.announcing import Wire, announce, open_wire, teach_bridge
from vferry.host.arriving import Arriving
from vferry.host.balloon import Balloons
from vferry.host.claims import Claims
from vferry.host.configuration import AgentConfiguration
from vferry.host.conntrack_netlink import Table
from vferry.host.gateways import RUNTIME, Gateways
from vferry.host.gateways_cpu import confine
from vferry.host.hiding import Hiding
from vferry.host.hypervisor import Hypervisor
from vferry.host.lent import Lent
from vferry.host.migration import Migrations
from vferry.host.migration_held import Held
from vferry.host.migration_limit import HostLimit
from vferry.host.openflow import Inlet
from vferry.host.relay_far import Flows
from vferry.host.relay_ports import RelayPorts
from vferry.host.relay_restore import Restoring
from vferry.host.relay_store import RelayStore
from vferry.host.sriov_netlink import Links
from vferry.host.switch_connections import SwitchConnections
from vferry.host.sysfs import Write, write_attribute
from vferry.model.relay import Relay

T = TypeVar("T")

Work = Callable[[], Struct]
"""What carries an operation out, in a thread, and gives its answer."""


class Parts:
    """The modules that carry operations out, with what they keep."""

    def __init__(
        self,
        configuration: AgentConfiguration,
        claims: Claims,
        directory: Path,
        *,
        hypervisor: Hypervisor | None = None,
        runtime: Path = RUNTIME,
        root: Path = Path("/"),
        links: Callable[[], Links] = Links,
        table: Callable[[], Table] = Table,
        wire: Callable[[str], Wire] = open_wire,
        write: Write = write_attribute,
    ) -> None:
        """`directory` keeps the host's certificates in its ``pki``; the rest stands in for the system in tests."""
        self.configuration = configuration
        self.claims = claims
        self.root = root
        self.links = links
        self.write = write
        self._table = table
        self._wire = wire
        self.hypervisor = hypervisor or Hypervisor()
        self.relay = RelayStore(directory)
        self.ports = RelayPorts(directory, self.relay.read, root, write)
        self.restoring = Restoring(root, self.relay.read, self.ports, links, write)
        self.flows = Flows(root, self.relay.read)
        self.switch_connections = SwitchConnections(root)
        self.arriving = Arriving(self.hypervisor, self._announce_arrived, root, links)
        self.hiding = Hiding(root, links)
        self.lent = Lent(self.hypervisor, claims, directory, root, links)
        confined = confine(configuration.cpu_share, root)
        self.gateways = Gateways(configuration.migration, self.hypervisor, directory / "pki", runtime, confined, root)
        self.limit = HostLimit(configuration.migration, directory)
        self.migrations = Migrations(self.hypervisor, runtime, self.limit.most)
        self.balloons = Balloons(self.hypervisor, runtime)
        self.held = Held(self.hypervisor, self.migrations, self.gateways, runtime)

    def read_relay(self) -> Relay | None:
        """The relay of this host with its ports. Problem ``relay-unreadable``."""
        relay = self.relay.read()
        return None if relay is None else replace(relay, ports=tuple(each.port for each in self.ports.all()))

    def teach_bridge(self, wanted: api.TeachBridge) -> api.Done:
        """Carries `TeachBridge` out."""
        # A guest that goes from the relay to a bridge has a port at both, and its NIC at the bridge alone.
        port = wanted.uplink or hypervisor_devices.tap_of(self.hypervisor, wanted.guest, wanted.mac)
        port = port or self.ports.on_switch(wanted.guest, wanted.mac)
        return self.with_links(lambda links: teach_bridge(links, self.root, port, wanted.mac, hold=not wanted.uplink))

    def announce(self, wanted: api.Announce) -> api.Done:
        """Carries `Announce` out."""
        return announce(wanted, lambda: self._way(wanted))

    def with_links(self, work: Callable[[Links], T]) -> T:
        """What is done with links of this host's kernel, open as long as that takes."""
        with self.links() as links:
            return work(links)

    def with_table(self, work: Callable[[Table], T]) -> T:
        """The same with its table of connections."""
        with self._table() as table:
            return work(table)

    def _announce_arrived(self, wanted: api.Announce) -> None:
        """The bridge first: what is announced may come back to it by the uplink."""
        if wanted.interface is not None:
            self.teach_bridge(api.TeachBridge(guest=wanted.guest, mac=wanted.mac))
        self.announce(wanted)

    def _way(self, wanted: api.Announce) -> Wire:
        if wanted.interface is None:
            return Inlet(self.root, relay_names.guest_name(wanted.port or wanted.mac))
        return self._wire(wanted.interface)
