"""vferry with OVN itself: its daemons and two chassis, guests being network namespaces on a switch in user space."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_libvirt import FakeAgents, FakeDomain, FakeLibvirt
from msgspec import structs
from ovn_chassis import GENEVE, VXLAN, Guest, Logical, Ovn, as_root, ovn, until
from ovn_frames import datagram, reached
from xml_samples import domain

from fakes import facts as f
from fakes.samples import GUEST, MAC
from vferry.controller.northbound import Northbound
from vferry.host.announcement import gratuitous_arp, rarp
from vferry.host.api import Announce, ExpectGuest, Operation, Session, SetBinding
from vferry.host.claims import Claims
from vferry.host.configuration import AgentConfiguration
from vferry.host.handlers import Handlers
from vferry.host.handlers.parts import Parts
from vferry.host.hypervisor import Hypervisor
from vferry.host.hypervisor_events import RESUMED
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.ovn import read_chassis
from vferry.host.relay_names import guest_name
from vferry.model.host import MigrationEndpoint
from vferry.model.ovn import NORTHBOUND, KnownPort, LogicalPort
from vferry.model.ovn import Chassis as Seen
from vferry.model.problem import Problem
from vferry.network.modes import stages
from vferry.network.step import Step
from vferry.plan.facts import Facts

pytestmark = as_root

WEB = Logical(name="web-0", mac=MAC, address="10.0.0.1")
PEER = Logical(name="peer-0", mac="52:54:00:00:00:02", address="10.0.0.2")


@pytest.fixture
def net(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ovn]:
    """With Geneve, or what a test asks for."""
    with ovn(tmp_path, getattr(request, "param", GENEVE)) as made:
        yield made


def known(net: Ovn) -> KnownPort:
    """What OVN says of the guest's port."""
    return asyncio.run(Northbound(net.settings).ports([WEB.name]))[WEB.name]


def bound(net: Ovn) -> LogicalPort:
    """Where it may bind it."""
    return known(net).binding


def steps(net: Ovn) -> dict[str, Step]:
    """A migration's from the first chassis to the second, planned on what both say of themselves."""
    here, there = (read_chassis(each.root) for each in net.chassis.values())

    def change(facts: Facts) -> Facts:
        both = f.both(f.on_ovn, f.host("source", chassis=here), f.host("destination", chassis=there))
        return structs.replace(both(facts), northbound={WEB.name: known(net)})

    planned = stages(f.planned(change))
    return {step.name: step for step in (*planned.before, *planned.landing)}


def do(net: Ovn, step: Step, *, undo: bool = False) -> None:
    """Has OVN's database do a step, and its chassis what that says."""
    assert step.host == NORTHBOUND
    for operation in step.undo if undo else step.apply:
        assert isinstance(operation, SetBinding)
        asyncio.run(Northbound(net.settings).call(operation))
    net.settle()


def share(net: Ovn, step: Step) -> None:
    """Has both chassis know the port as theirs, with all flows that follow from it."""
    do(net, step)
    until(lambda: net.places(WEB.name) == ["c1", "c2"])
    net.settle()


def test_a_chassis_is_what_it_says_of_itself(net: Ovn) -> None:
    here = net.chassis["c1"]
    cut_off = Seen(name="c1", bridge="br-int", userspace=True, encap_types=(GENEVE,))
    connected = structs.replace(cut_off, connected=True)
    assert read_chassis(here.root) == connected
    here.controller.end()
    assert read_chassis(here.root) == cut_off
    here.controller.start()
    until(lambda: read_chassis(here.root) == connected)
    net.southbound.daemon.end()
    until(lambda: read_chassis(here.root) == cut_off)


class Pair:
    """A guest on its way from one chassis to the other, where its peer is: a namespace at each."""

    def __init__(self, net: Ovn) -> None:
        net.add_switch("ls", WEB, PEER)
        first, second = net.chassis.values()
        self.here, self.peer = first.plug(WEB), second.plug(PEER)
        net.settle()
        asyncio.run(Northbound(net.settings).call(SetBinding(port=f.LOGICAL)))
        self.there = second.plug(WEB)
        until(lambda: self.is_at(self.here))

    def of_peer(self) -> list[Guest]:
        """Whom it reaches what the peer sends to the guest."""
        return reached([datagram(WEB, PEER)], self.peer, self.here, self.there)

    def heard(self) -> list[Guest]:
        """Who is heard by the peer."""
        return [each for each in (self.here, self.there) if reached([datagram(PEER, WEB)], each, self.peer)]

    def is_at(self, *places: Guest) -> bool:
        return self.of_peer() == self.heard() == [*places]

    def stays_at(self, place: Guest) -> bool:
        """Whether it is there. Fails if it is elsewhere, too."""
        heard, of_peer = self.heard(), self.of_peer()
        assert {*heard, *of_peer} <= {place}
        return heard == of_peer == [place]


@pytest.fixture
def pair(net: Ovn) -> Pair:
    return Pair(net)


@pytest.mark.parametrize("net", [GENEVE, VXLAN], indirect=True)
def test_a_guest_is_blocked_where_it_will_be_until_a_rarp_comes_from_it(net: Ovn, pair: Pair) -> None:
    before, of_migration = bound(net), steps(net)
    share(net, of_migration["share-port"])
    until(lambda: pair.stays_at(pair.here))
    pair.there.wire.send(gratuitous_arp(WEB.mac, WEB.address))
    until(lambda: pair.stays_at(pair.here))  # a guest's own announcement is none to OVN
    pair.there.wire.send(rarp(WEB.mac))
    until(lambda: pair.is_at(pair.here, pair.there))
    do(net, of_migration["settle-port"])
    until(lambda: pair.is_at(pair.there))
    assert bound(net) == LogicalPort(name=WEB.name, requested_chassis="c2")
    do(net, of_migration["share-port"], undo=True)
    until(lambda: pair.is_at(pair.here))
    assert bound(net) == before


def test_a_port_that_was_bound_wherever_it_was_is_so_again(net: Ovn, pair: Pair) -> None:
    here, there = net.chassis.values()
    there.tell_ovn(WEB, here=False)
    asyncio.run(Northbound(net.settings).call(SetBinding(port=LogicalPort(name=WEB.name))))
    before, of_migration = bound(net), steps(net)
    assert before.requested_chassis is None
    there.tell_ovn(WEB, here=True)
    do(net, of_migration["settle-port"])
    here.tell_ovn(WEB, here=False)
    do(net, of_migration["free-port"])
    until(lambda: pair.is_at(pair.there))
    assert bound(net) == before


class Agent:
    """The agent of a chassis, to which a guest is on its way."""

    def __init__(self, root: Path) -> None:
        self.guest = FakeDomain(persistent=domain(name=GUEST))
        self.library = FakeLibvirt(self.guest)
        self.session = Session(operation="op-1")
        claims = Claims(root / "claims", 2)
        claims.claim(self.session, GUEST)
        self.handlers = Handlers(
            Parts(
                AgentConfiguration(name="host2", migration=MigrationEndpoint(address="127.0.0.1", ports=(1, 2))),
                claims,
                root / "state",
                hypervisor=Hypervisor(library=self.library, agent_library=FakeAgents()),
                runtime=root / "run/vferry",
                root=root,
            )
        )

    def ask(self, operation: Operation[Any]) -> Any:
        return asyncio.run(self.handlers.handle(operation, self.session))

    def resume(self) -> None:
        """Has libvirt tell that the guest runs here."""
        self.library.emit(self.library.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self.guest, RESUMED, 1)


@pytest.fixture
def agent(net: Ovn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    monkeypatch.setattr("vferry.host.announcing.TIMES_S", (0.0, 0.1))
    made = Agent(net.chassis["c2"].root)
    yield made
    made.handlers.close()


def of_port(step: Step) -> tuple[Announce, ...]:
    """What a step has announced by the guest's port."""
    (expected,) = (each for each in step.apply if isinstance(each, ExpectGuest))
    return tuple(each for each in expected.announced if each.interface is None)


def test_the_destination_s_agent_has_it_pass_as_the_guest_resumes(net: Ovn, pair: Pair, agent: Agent) -> None:
    """The guest itself says nothing."""
    of_migration = steps(net)
    share(net, of_migration["share-port"])
    agent.ask(ExpectGuest(guest=GUEST, announced=of_port(of_migration["expect-guest"])))
    until(lambda: pair.stays_at(pair.here))
    agent.resume()
    until(lambda: pair.is_at(pair.here, pair.there))
    do(net, of_migration["settle-port"])
    until(lambda: pair.is_at(pair.there))


def test_an_agent_that_has_not_heard_of_the_resume_does_it_when_asked(net: Ovn, pair: Pair, agent: Agent) -> None:
    of_migration = steps(net)
    share(net, of_migration["share-port"])
    (told,) = (each for each in of_migration["announce"].apply if each in of_port(of_migration["expect-guest"]))
    assert agent.ask(told).detail == "2 times in 0.1 s from its own port"
    until(lambda: pair.is_at(pair.here, pair.there))


@pytest.mark.parametrize("plugged", [False, True])
def test_where_the_bridge_does_not_take_it_that_is_said(net: Ovn, agent: Agent, *, plugged: bool) -> None:
    there = net.chassis["c2"]
    if plugged:
        there.plug(WEB)
        until(lambda: OpenVSwitch(there.root).find(guest_name(MAC)))
        there.switch.end()
    with pytest.raises(Problem, match=f"{MAC} was not announced from its own port") as caught:
        agent.ask(Announce(guest=GUEST, mac=MAC))
    assert caught.value.code == "announce-failed"


def test_a_guest_that_said_nothing_is_reached_once_ovn_knows_it_there_alone(net: Ovn, pair: Pair) -> None:
    of_migration = steps(net)
    share(net, of_migration["share-port"])
    do(net, of_migration["settle-port"])
    until(lambda: pair.is_at(pair.there))


def test_undone_before_it_came_it_is_as_it_was(net: Ovn, pair: Pair) -> None:
    before, of_migration = bound(net), steps(net)
    share(net, of_migration["share-port"])
    do(net, of_migration["share-port"], undo=True)
    until(lambda: net.places(WEB.name) == ["c1"])
    until(lambda: pair.stays_at(pair.here))
    assert bound(net) == before


def test_without_northd_or_its_southbound_database_a_guest_stays_where_it_is(
    net: Ovn, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whoever would migrate it is told soon. What was undone meanwhile is so once OVN is back."""
    before, of_migration = bound(net), steps(net)
    for part in (net.northd, net.southbound.daemon):
        part.end()
        with monkeypatch.context() as soon:
            soon.setattr("vferry.controller.northbound.NORTHD_S", 1.0)
            with pytest.raises(Problem) as caught:
                do(net, of_migration["share-port"])
        assert caught.value.code == "northd-silent"
        (undone,) = of_migration["share-port"].undo
        asyncio.run(Northbound(net.settings).call(undone))
        until(lambda: pair.stays_at(pair.here))
        assert bound(net) == before
        part.start()
        share(net, of_migration["share-port"])
        do(net, of_migration["share-port"], undo=True)
        until(lambda: net.places(WEB.name) == ["c1"])
    net.northbound.daemon.end()
    monkeypatch.setattr("vferry.host.ovsdb.TIMEOUT_S", 1.0)
    with pytest.raises(Problem) as caught:
        do(net, of_migration["share-port"])
    assert caught.value.code == "host-unreachable"
    until(lambda: pair.stays_at(pair.here))
