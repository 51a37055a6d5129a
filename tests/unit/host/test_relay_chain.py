"""A service chain on a real Open vSwitch in user space: guests' frames go through services, or nowhere.

What is done to ports is what a plan says, by the module that the agent has for it; their types are those of veths.
"""

import os
import select
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace
from ovn_chassis import Guest, Logical, as_root
from ovn_frames import OUTGOING, arp, arrives, datagram, reached, tagged
from switch_ground import BRIDGE, Switch, switch, switches

from fakes.relay import HOST
from vferry.host.announcement import rarp
from vferry.host.api import JoinRelay
from vferry.host.openflow import Inlet
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.relay_guest_port import set_port
from vferry.host.relay_names import guest_name
from vferry.model.host import Inventory
from vferry.model.relay import Relay, RelayBridge, RelayKind, RelayPort, RelayState, RelayUplink, SwitchPlace
from vferry.plan.relay_chain import ChainAssessment, ChainWishes, Service, assess_chain, assess_no_chain

pytestmark = as_root


def nic(name: str, last: int) -> Logical:
    return Logical(name=name, mac=f"52:54:00:00:00:{last:02x}", address=f"10.0.0.{last}")


GUEST, PEER, BESIDE = nic("guest", 1), nic("peer", 2), nic("beside", 3)
FIRST, SECOND = (nic("first", 0x21), nic("first", 0x22)), (nic("second", 0x31), nic("second", 0x32))
FORBIDDEN = Logical(name="forbidden", mac=PEER.mac, address="10.0.0.66")
"""An address of the peer's that services pass nothing for."""
NEVER = bytes((10, 0, 0, 66))
TENANT, VLANS = 7, (901, 902)
RELAY = Relay(
    operation="relay-1",
    state=RelayState.ENABLED,
    kind=RelayKind.SWITCHED,
    uplinks=("pf0",),
    cores=(7,),
    bridges=(RelayBridge(name=BRIDGE, uplinks=(RelayUplink(name="relay0-up0", address="0000:01:10.0"),)),),
)


class Passing(threading.Thread):
    """A service: passes what comes in by one NIC out of the other, and notes what it has seen of tests' frames."""

    def __init__(self, name: str, inward: Guest, outward: Guest) -> None:
        super().__init__(name=name)
        self.seen: list[tuple[str, bytes]] = []
        self._ways = {inward.wire: ("away", outward.wire), outward.wire: ("back", inward.wire)}
        self._ended, self._end = os.pipe()

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self._ended, *(wire.fileno() for wire in self._ways)], [], [])
            if self._ended in ready:
                return
            for wire in (each for each in self._ways if each.fileno() in ready):
                frame, place = wire.recvfrom(2000)
                way, other = self._ways[wire]
                if place[2] == OUTGOING:
                    continue
                if frame[-8:-4] == b"mark" and (way, frame[-8:]) not in self.seen:
                    self.seen.append((way, frame[-8:]))
                if NEVER not in frame:
                    other.send(frame)

    def end(self) -> None:
        os.write(self._end, b"x")
        self.join(10)
        os.close(self._end)
        os.close(self._ended)


class Host:
    """A host with such a bridge, and its guests' ports, as its agent would have them."""

    def __init__(self, made: Switch) -> None:
        self.made = made
        self.ports: dict[str, RelayPort] = {}

    def plug(self, port: Logical, vlan: int = TENANT, like: RelayPort | None = None) -> Guest:
        """A guest's NIC; `like`: as on the host that it comes from."""
        guest = self.made.wire(guest_name(port.mac), port)
        place = SwitchPlace(bridge=BRIDGE, vlan=vlan)
        self.join(like or RelayPort(guest=port.name, mac=port.mac, socket="/s", switch=place))
        return guest

    def join(self, port: RelayPort) -> None:
        set_port(self.made.root, port, present=True)
        self.ports[port.mac] = port

    def leave(self, of: Logical) -> RelayPort:
        port = self.ports.pop(of.mac)
        set_port(self.made.root, port, present=False)
        return port

    def do(self, found: ChainAssessment, *, undo: bool = False) -> None:
        assert not found.errors, found.errors
        assert found.steps
        for each in reversed(found.steps) if undo else found.steps:
            for asked in each.step.undo if undo else each.step.apply:
                assert isinstance(asked, JoinRelay)
                self.join(asked.port)

    def serve(self, stack: ExitStack, nics: tuple[Logical, Logical], *like: RelayPort) -> Passing:
        """A service's guest, whose NICs are in VLANs of no use before."""
        ends = [self.plug(each, 1000 + at, *like[at : at + 1]) for at, each in enumerate(nics)]
        made = Passing(nics[0].name, *ends)
        made.start()
        stack.callback(made.end)
        return made

    def chain(self, *services: tuple[Logical, Logical]) -> ChainAssessment:
        through = tuple(Service(inward=inward.mac, outward=outward.mac) for inward, outward in services)
        wishes = ChainWishes(name="web", served=(GUEST.mac,), services=through, vlans=VLANS[: len(through)])
        return assess_chain(self.inventory, wishes)

    @property
    def inventory(self) -> Inventory:
        return replace(HOST, relay=replace(RELAY, ports=tuple(self.ports.values())))


@pytest.fixture(autouse=True)
def _on_veths(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no DPDK for vhost-user."""
    monkeypatch.setattr("vferry.host.relay_guest_port.by_socket", lambda _port: ("", {}))


class Net:
    """A guest that is served, and a neighbour of its tenant's, with the services that are between them."""

    def __init__(self, stack: ExitStack, made: Switch, *services: tuple[Logical, Logical]) -> None:
        self.host = Host(made)
        self.guest, self.peer = self.host.plug(GUEST), self.host.plug(PEER)
        self.passing = [self.host.serve(stack, each) for each in services]
        self.services = services

    def lead(self) -> None:
        self.host.do(self.host.chain(*self.services))

    def both_ways(self) -> tuple[bool, bool]:
        """Whether a broadcast of the guest's reaches its neighbour, and then an answer to it the guest."""
        away = bool(reached([arp(PEER, GUEST, reply=False)], self.guest, self.peer))
        return away, bool(reached([arp(GUEST, PEER, reply=True)], self.peer, self.guest))

    def soon(self) -> bool:
        """Whether all passes both ways, once flows that are in use are seen to."""
        return any(self.both_ways() == (True, True) for _ in range(10))

    def forbidden(self) -> bool:
        """Whether anything passes that no service lets pass."""
        frames = (arp(FORBIDDEN, GUEST, reply=False), datagram(FORBIDDEN, GUEST))
        return bool(reached(frames, self.guest, self.peer))


@contextmanager
def net(folder: Path, *services: tuple[Logical, Logical]) -> Iterator[Net]:
    with switch(folder) as made, ExitStack() as stack:
        yield Net(stack, made, *services)


def test_frames_go_through_services_in_order_and_back_in_the_other(tmp_path: Path) -> None:
    with net(tmp_path, FIRST, SECOND) as made:
        first, second = made.passing
        assert made.soon()
        assert made.forbidden(), "the way is open before"
        assert (first.seen, second.seen) == ([], [])
        made.lead()
        assert made.soon()
        for each in made.passing:
            each.seen.clear()
        away, back = arp(PEER, GUEST, reply=False), datagram(GUEST, PEER)
        assert arrives([away], made.guest, made.peer)
        assert arrives([back], made.peer, made.guest)
        assert first.seen == second.seen == [("away", away[-8:]), ("back", back[-8:])]
        for each in made.passing:
            each.seen.clear()
        assert not made.forbidden()
        assert (len(first.seen), second.seen) == (2, []), "the first one has kept them"
        made.host.do(assess_no_chain(made.host.inventory, "web"))
        assert made.soon()
        assert made.forbidden()


def test_what_the_bridge_holds_of_a_guest_leads_nobody_around(tmp_path: Path) -> None:
    """Its agent has it hold a guest's MAC at its port, when it arrives."""
    with net(tmp_path, FIRST) as made:
        made.both_ways()
        OpenVSwitch(made.host.made.root).teach(guest_name(GUEST.mac), GUEST.mac, hold=True)
        assert arrives([datagram(GUEST, PEER)], made.peer, made.guest)
        made.lead()
        assert made.soon()
        made.passing[0].seen.clear()
        frame = datagram(GUEST, PEER)
        assert arrives([frame], made.peer, made.guest)
        assert made.passing[0].seen == [("back", frame[-8:])]
        assert made.soon()


def test_without_a_service_nothing_passes(tmp_path: Path) -> None:
    with net(tmp_path, FIRST, SECOND) as made:
        made.lead()
        assert made.soon()
        for nics in (FIRST, SECOND):
            for each in nics:
                port = made.host.leave(each)
                assert made.both_ways() == (False, False)
                assert reached([arp(GUEST, PEER, reply=False)], made.peer, made.guest) == []
                made.host.join(port)
                assert made.soon()


def test_after_a_restart_of_the_switch_nothing_goes_around(tmp_path: Path) -> None:
    """Frames are sent all the while; what a service keeps is never seen behind it."""
    with net(tmp_path, FIRST) as made:
        made.lead()
        assert made.soon()
        made.host.made.daemon.end()
        assert made.both_ways() == (False, False)
        made.host.made.daemon.start()
        for _ in range(5):
            assert not made.forbidden()
            made.both_ways()
        assert made.soon()
        assert not made.forbidden()


def test_outside_nobody_is_reached_but_through_it(tmp_path: Path) -> None:
    with net(tmp_path, FIRST) as made:
        outside = made.host.made.outside
        made.lead()
        (first,) = made.passing
        assert made.soon()
        first.seen.clear()
        comes = datagram(GUEST, PEER)
        assert arrives([tagged(comes, TENANT)], outside, made.guest)
        assert first.seen == [("back", comes[-8:])]
        assert reached([tagged(arp(GUEST, PEER, reply=False), 8)], outside, made.guest) == []
        assert reached([arp(GUEST, PEER, reply=False)], outside, made.guest) == []


@pytest.mark.parametrize("done", range(4))
def test_one_that_is_half_made_is_undone_or_gone_on_with(tmp_path: Path, done: int) -> None:
    with net(tmp_path, FIRST) as made:
        before = dict(made.host.ports)
        found = made.host.chain(FIRST)
        part = replace(found, steps=found.steps[:done])
        if done:
            made.host.do(part)
            made.host.do(part, undo=True)
        assert made.host.ports == before
        assert made.soon()
        assert made.forbidden()
        if done:
            made.host.do(part)
        made.lead()
        assert made.soon()
        assert not made.forbidden()


def test_it_goes_on_when_its_guest_or_a_service_migrates(tmp_path: Path) -> None:
    """By the chain's VLANs of the network between the hosts, until all of it is on the other one."""
    with switches(tmp_path, "host1", "host2") as (network, one, two), ExitStack() as stack:
        made, other = Net(stack, one, FIRST), Host(two)
        beside = other.plug(BESIDE)
        made.lead()
        (first,) = made.passing

        def check(passing: Passing) -> None:
            assert made.soon()
            assert not made.forbidden()
            passing.seen.clear()
            frame = arp(BESIDE, GUEST, reply=False)
            assert arrives([frame], made.guest, beside)
            assert passing.seen == [("away", frame[-8:])]
            back = datagram(GUEST, BESIDE)
            assert arrives([back], beside, made.guest)
            assert passing.seen[1:] == [("back", back[-8:])]

        check(first)
        made.guest = other.plug(GUEST, like=made.host.leave(GUEST))
        check(first)
        gone = [made.host.leave(each) for each in FIRST]
        assert made.both_ways() == (False, False)
        arrived = other.serve(stack, FIRST, *gone)
        outside = network.outside
        made.passing = [arrived]
        frame = tagged(datagram(GUEST, PEER), TENANT)
        assert reached([frame], outside, made.guest) == [], "the switch between takes it to be behind the first host"
        Inlet(two.root, guest_name(FIRST[1].mac)).send(rarp(GUEST.mac))
        assert any(reached([frame], outside, made.guest) for _ in range(5)), "as the agent announces it"
        check(arrived)
        assert list(made.host.ports) == [PEER.mac]
