"""A switched relay's bridge in a real Open vSwitch in user space, without DPDK, with guests and what is outside.

    with switch(tmp_path) as made:
        guest = made.plug(Logical(name="guest1", mac="52:54:00:00:00:01", address="10.0.0.1"), vlan=7)
        guest.wire.send(frame)             # its frames: a socket of AF_PACKET on its eth0
        made.outside.wire.recv(2000)       # what leaves by the bridge's uplink
        made.daemon.end(); made.daemon.start()

Guests are network namespaces, as in `ovn_chassis`; the uplink is a veth. `made.root` is what an agent has as its root.
Several hosts of one network: `switches(tmp_path, "host1", "host2")`, with a switch between their uplinks.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ovn_chassis import Daemon, Guest, Logical, Store, inside, until, with_checksums
from ovs_database import needed

from vferry.host.openvswitch import OpenVSwitch
from vferry.host.ovsdb import Database
from vferry.host.relay_bridge import BridgeSpec, PortSpec, drop_ports, insert_port, set_spec
from vferry.host.relay_names import guest_name
from vferry.trial.namespace import Namespace, run

BRIDGE, UPLINK = "relay0", "relay0-up0"
OUTSIDE = Logical(name="outside", mac="02:00:c0:00:00:09", address="192.0.2.9")


class Switch:
    """The host of such a bridge."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.root, self._stack = folder, stack
        self.namespace = stack.enter_context(Namespace())
        self.store = Store(folder, folder / "run/openvswitch/db.sock", "openvswitch/vswitch.ovsschema", "Open_vSwitch")
        pid = f"--pidfile={folder}/run/openvswitch/ovs-vswitchd.pid"
        words = ("ovs-vswitchd", self.store.remote, pid)
        self.daemon = Daemon(folder, "ovs-vswitchd", words, tuple(self.namespace.inside()))
        for each in (self.store.daemon, self.daemon):
            stack.callback(each.end)

    def start(self, network: "Switch | None" = None) -> None:
        self.store.daemon.start()
        until(self.store.answers, self.store.daemon)
        self.store.transact({"op": "insert", "table": "Open_vSwitch", "row": {}})
        self.daemon.start()
        if network is None:
            self.outside = self.wire(UPLINK, OUTSIDE)
        else:
            network.connect(self)
        port = PortSpec(name=UPLINK, interfaces={UPLINK: ("", {})})
        set_spec(self.root, BridgeSpec(name=BRIDGE, ports=(port,), mtu=1500), present=True)

    def connect(self, host: "Switch") -> None:
        """A host's uplink is a port of this bridge, which passes all VLANs."""
        name = f"to-{host.root.name}"
        here, there = str(self.namespace.pid), str(host.namespace.pid)
        run(["ip", "link", "add", "name", name, "netns", here, "type", "veth", "peer", "name", UPLINK, "netns", there])
        for where, nic in ((self.namespace, name), (host.namespace, UPLINK)):
            where.run(["ip", "link", "set", nic, "up"])
        self._add(name, 0)

    def plug(self, port: Logical, vlan: int = 0) -> Guest:
        """A guest whose NIC is a port of the bridge, under the name that vferry would give it."""
        guest = self.wire(guest_name(port.mac), port)
        self.join(port, vlan)
        return guest

    def join(self, port: Logical, vlan: int) -> None:
        self._add(guest_name(port.mac), vlan)

    def _add(self, name: str, vlan: int) -> None:
        def insert(transaction: Any) -> None:
            spec = PortSpec(name=name, interfaces={name: ("", {})})
            made = insert_port(transaction, database, spec, None)
            if vlan:
                made.tag, made.vlan_mode = [vlan], ["access"]
            bridge.ports = [*bridge.ports, made]

        with Database(self.root) as database:
            bridge: Any = database.named("Bridge", BRIDGE)
            database.change(insert)

    def leave(self, port: Logical) -> None:
        """Its port goes, as when it has migrated, or its host has lost it."""
        with Database(self.root) as database:
            bridge: Any = database.named("Bridge", BRIDGE)
            database.change(lambda _: drop_ports(bridge, (guest_name(port.mac),)))

    def daemon_routes(self) -> str:
        """The ways that the switch knows for tunnels, in its own words."""
        return OpenVSwitch(self.root).ask_switch("ovs/route/show")

    def rows(self, table: str, name: str, *columns: str) -> list[Mapping[str, Any]]:
        return list(self.store.rows(table, *columns, where=(["name", "==", name],)))

    def wire(self, name: str, port: Logical) -> Guest:
        """A namespace whose eth0 is a veth to an interface of this name here, which is no port yet."""
        guest = Guest(self._stack.enter_context(Namespace()), port)
        self._stack.callback(guest.close)
        here, there = str(self.namespace.pid), str(guest.namespace.pid)
        run(["ip", "link", "add", "name", name, "netns", here, "type", "veth", "peer", "name", "eth0", "netns", there])
        guest.namespace.run(["ip", "link", "set", "eth0", "address", port.mac])
        # Nothing is sent of its own accord: no IPv6.
        guest.namespace.run(["ip", "link", "set", "eth0", "addrgenmode", "none"])
        for where, nic in ((self.namespace, name), (guest.namespace, "eth0")):
            inside(where, partial(with_checksums, nic))
            where.run(["ip", "link", "set", nic, "up"])
        return guest


@contextmanager
def switch(folder: Path) -> Iterator[Switch]:
    """Such a one below a folder; all of it is gone afterwards."""
    needed("ovs-vswitchd")
    with ExitStack() as stack:
        made = Switch(stack, folder)
        made.start()
        yield made


@contextmanager
def switches(folder: Path, *names: str) -> Iterator[tuple[Switch, ...]]:
    """Hosts of one physical network, and the switch between them, which comes first, and has an `outside`."""
    needed("ovs-vswitchd")
    with ExitStack() as stack:
        network = Switch(stack, folder / "network")
        network.start()
        hosts = tuple(Switch(stack, folder / name) for name in names)
        for each in hosts:
            each.start(network)
        yield (network, *hosts)
