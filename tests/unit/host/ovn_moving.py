"""A guest that migrates from one chassis of OVN's to the other, as vferry's steps and agents have it, with OVN itself.

The guest is a namespace with a NIC at each chassis, of which one is up: so it keeps its sockets, as in a migration.

    traveller = Traveller(net, web, "route add default via 10.0.0.254")   # its eth0 is set up so, here and there
    traveller.migrate()                                                   # as the steps do it, with both agents
    traveller.guest.wire.send(frame)

Its port has the MAC and the name of the plans in `fakes.facts`.
"""

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import msgspec
from fake_libvirt import FakeAgents, FakeDomain, FakeLibvirt
from ovn_chassis import Chassis, Logical, Ovn, inside, until, with_checksums
from xml_samples import domain

from fakes import facts as f
from fakes.samples import GUEST, MAC
from vferry.controller.northbound import Northbound
from vferry.host.api import Announce, ExpectGuest, JoinRelay, LeaveRelay, Operation, R, Session, SetBinding
from vferry.host.claims import Claims
from vferry.host.configuration import AgentConfiguration
from vferry.host.handlers import Handlers
from vferry.host.handlers.parts import Parts
from vferry.host.hypervisor import Hypervisor
from vferry.host.hypervisor_events import RESUMED
from vferry.host.relay_names import guest_name
from vferry.migration.connections import Connections
from vferry.model.host import MigrationEndpoint
from vferry.model.ovn import LogicalPort
from vferry.trial.namespace import run

MTU = 1400
"""It goes through a tunnel."""


class Agent:
    """The agent of a chassis, as a controller asks it."""

    def __init__(self, chassis: Chassis) -> None:
        self.name = chassis.name
        self.guest = FakeDomain(persistent=domain(name=GUEST))
        self.library = FakeLibvirt(self.guest)
        state = chassis.root / "state"
        state.mkdir()
        port = msgspec.structs.replace(f.BOUND_PORT, guest=GUEST, mac=MAC)
        (state / "relay-ports.json").write_bytes(msgspec.json.encode([JoinRelay(port=port)]))
        claims = Claims(chassis.root / "claims", 2)
        self._session = Session(operation="op-1")
        claims.claim(self._session, GUEST)
        self.handlers = Handlers(
            Parts(
                AgentConfiguration(name=self.name, migration=MigrationEndpoint(address="127.0.0.1", ports=(1, 2))),
                claims,
                state,
                hypervisor=Hypervisor(library=self.library, agent_library=FakeAgents()),
                runtime=chassis.root / "run/vferry",
                root=chassis.root,
            )
        )

    async def call(self, operation: Operation[R], *, timeout_s: float = 30.0) -> R:
        async with asyncio.timeout(timeout_s):
            answer: Any = await self.handlers.handle(operation, self._session)
        return answer  # type: ignore[no-any-return]

    def resume(self) -> None:
        """Has libvirt tell that the guest runs here."""
        self.library.emit(self.library.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self.guest, RESUMED, 1)


class Traveller:
    """A guest on the first chassis, which goes to the second one."""

    def __init__(self, net: Ovn, port: Logical, *lines: str) -> None:
        self.net = net
        self.port = port
        self.here, self.there = net.chassis.values()
        self._lines = lines
        self.guest = self.here.plug(port)
        asyncio.run(self.bind("c1"))
        self._add_nic()
        for nic in ("eth0", "next"):
            self._ip(f"link set {nic} mtu {MTU}")
        self._ip(*lines)
        self.agents = Agent(self.here), Agent(self.there)

    def close(self) -> None:
        for agent in self.agents:
            agent.handlers.close()

    def migrate(self, *, with_them: bool = True, meanwhile: Callable[[], None] = lambda: None) -> str:
        """As the steps do it, with what the agents do by themselves; `meanwhile`: while the guest stands still.

        Says what became of its connections, which go along unless `with_them` is false.
        """
        return asyncio.run(self._migrate(with_them, meanwhile))

    async def _migrate(self, with_them: bool, meanwhile: Callable[[], None]) -> str:  # noqa: FBT001
        here, there = self.agents
        plan = msgspec.structs.replace(f.planned(f.on_ovn), guest=GUEST)
        connections = Connections(plan, here, there)
        await self.bind("c1", "c2")
        await there.call(ExpectGuest(guest=GUEST, announced=(Announce(guest=GUEST, mac=self.port.mac),)))
        if with_them:
            async with connections.followed():
                await asyncio.sleep(0.3)
        self._move(meanwhile)
        there.resume()
        said = (await connections.last_of_ports())[0] if with_them else ""
        await self.bind("c2")
        await here.call(LeaveRelay(guest=GUEST, mac=self.port.mac))
        return said

    async def bind(self, *chassis: str) -> None:
        strategy = "rarp" if len(chassis) > 1 else None
        port = LogicalPort(name=self.port.name, requested_chassis=",".join(chassis), activation_strategy=strategy)
        await Northbound(self.net.settings).call(SetBinding(port=port))
        self.net.settle()
        until(lambda: self.net.places(self.port.name) == [*chassis])
        self.net.settle()

    def _add_nic(self) -> None:
        """Its NIC at the destination, which is down yet."""
        name, at, of = guest_name(self.port.mac), str(self.there.namespace.pid), str(self.guest.namespace.pid)
        run(["ip", "link", "add", "name", name, "netns", at, "type", "veth", "peer", "name", "next", "netns", of])
        self._ip(f"link set next address {self.port.mac}")
        inside(self.guest.namespace, lambda: with_checksums("next"))
        self.there.namespace.run(["ip", "link", "set", name, "up"])
        self.there.join(name, self.port)

    def _move(self, meanwhile: Callable[[], None]) -> None:
        """The guest stands still, and goes on at the destination, with all that its kernel knows."""
        told = self.guest.namespace.inside(["ip", "neighbour", "show", "dev", "eth0", "nud", "all"])
        known = [line.split() for line in subprocess.check_output(told, text=True).splitlines() if "lladdr" in line]
        self._ip("link set eth0 down", "address flush dev eth0", "link set eth0 name gone", "link set next name eth0")
        self.guest.forget_wire()
        meanwhile()
        self._ip(f"address add {self.port.address}/24 dev eth0", "link set eth0 up", *self._lines)
        self._ip(*(f"neighbour replace {who} lladdr {mac} dev eth0" for who, _, mac, *_ in known))

    def _ip(self, *lines: str) -> None:
        for line in lines:
            self.guest.namespace.run(["ip", *line.split()])


def passes(of: socket.socket, to: socket.socket, within_s: float = 2.0) -> bool:
    """Whether what one end sends comes to the other."""
    data = os.urandom(16)
    of.send(data)
    to.settimeout(within_s)
    try:
        return to.recv(2000) == data
    except TimeoutError:
        return False
