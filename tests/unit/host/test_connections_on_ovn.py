"""A guest's connections through OVN's filters, from one chassis to the other: its kernel's own, with OVN itself."""

import contextlib
import hashlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ovn_chassis import Chassis, Guest, Logical, Ovn, acl, as_root, inside, ovn, until
from ovn_moving import MTU, Traveller, passes

from fakes.samples import GUEST, MAC
from vferry.host.api import PutPortConnections, ReadPortConnections
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.pipeline import Pipeline, tcp_from, to_controller
from vferry.host.segments import tcp
from vferry.host.switch_connections import CONTROLLER, PRIORITY
from vferry.model.connections import PortConnection, Way
from vferry.model.problem import Problem

pytestmark = as_root

WEB = Logical(name="web-0", mac=MAC, address="10.0.0.1", secure=False)
PEER = Logical(name="peer-0", mac="52:54:00:00:00:02", address="10.0.0.2", secure=False)
SIX = {WEB: "fd00::1", PEER: "fd00::2"}
"""Their other addresses, of which OVN does not know."""
SERVICE, THEIRS, DATAGRAMS, FORBIDDEN = 80, 7000, 53, 81
RULES = (
    acl("from", 1, 'inport == "web-0" && (ip4 || tcp)', "drop"),
    acl("to", 1, 'outport == "web-0" && (ip4 || tcp)', "drop"),
    acl("from", 2, f'inport == "web-0" && tcp.dst == {THEIRS}', "allow-related"),
    acl("to", 2, f'outport == "web-0" && tcp.dst == {SERVICE}', "allow-related"),
    acl("to", 2, f'outport == "web-0" && udp.dst == {DATAGRAMS}', "allow-related"),
)
"""By default nothing; and what may be is said of those who begin."""
NOT_S = 0.5
"""For how long nothing must come."""

Pair = tuple[socket.socket, socket.socket]
"""Who began, and the other end."""


class Moving(Traveller):
    """One that is behind filters, with connections to a peer on the chassis where it goes."""

    def __init__(self, net: Ovn) -> None:
        net.add_switch("ls", WEB, PEER)
        net.give("Logical_Switch", "ls", "acls", "ACL", *RULES)
        self.peer = net.chassis["c2"].plug(PEER)
        six = (f"address add {SIX[each]}/64 dev eth0 nodad" for each in (WEB, PEER))
        super().__init__(net, WEB, next(six))
        self.peer.namespace.ip(f"link set eth0 mtu {MTU}", next(six))
        self.listening = {SERVICE: listen(self.guest, SERVICE), THEIRS: listen(self.peer, THEIRS)}
        self.ended: list[socket.socket] = []

    def close(self) -> None:
        super().close()
        for each in self.ended:
            each.close()

    def connect(self, of: Guest, port: int) -> Pair:
        """A connection to one of those who listen. The first SYN may be lost, while chassis look for each other."""
        return self._connected(of.endpoint(socket.SOCK_STREAM), self.listening[port])

    def connect_six(self) -> Pair:
        """One of the peer's by IPv6."""
        made = [inside(each.namespace, lambda: socket.socket(socket.AF_INET6)) for each in (self.guest, self.peer)]
        self.ended += made
        made[0].bind((SIX[WEB], SERVICE))
        made[0].listen()
        return self._connected(made[1], made[0])

    def _connected(self, calling: socket.socket, listening: socket.socket) -> Pair:
        for each in (calling, listening):
            each.settimeout(5)
        calling.connect(listening.getsockname())
        answered, _ = listening.accept()
        self.ended.append(answered)
        return calling, answered


@pytest.fixture
def moving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moving]:
    monkeypatch.setattr("vferry.host.announcing.TIMES_S", (0.0,))
    with ovn(tmp_path) as net, contextlib.closing(Moving(net)) as made:
        yield made


def listen(at: Guest, port: int) -> socket.socket:
    listening = at.endpoint(socket.SOCK_STREAM, port)
    listening.settimeout(5)
    listening.listen(2000)
    return listening


def datagrams(of: Guest, to: Guest) -> Pair:
    asking, asked = of.endpoint(socket.SOCK_DGRAM), to.endpoint(socket.SOCK_DGRAM, DATAGRAMS)
    asking.connect(asked.getsockname())
    asked.connect(asking.getsockname())
    return asking, asked


def is_let_in(moving: Moving, port: int) -> bool:
    """Whether a new connection of the peer's comes about."""
    with contextlib.closing(moving.peer.endpoint(socket.SOCK_STREAM)) as calling:
        calling.settimeout(NOT_S)
        try:
            calling.connect((WEB.address, port))
        except TimeoutError:
            return False
        except ConnectionRefusedError:
            pass
        return True


def every_kind(moving: Moving) -> dict[str, Pair]:
    """Connections through the filters, which all have passed something both ways."""
    made = {
        "of the peer's": moving.connect(moving.peer, SERVICE),
        "of the peer's, idle": moving.connect(moving.peer, SERVICE),
        "of the guest's": moving.connect(moving.guest, THEIRS),
        "by IPv6": moving.connect_six(),
        "datagrams": datagrams(moving.peer, moving.guest),
    }
    for first, other in made.values():
        until(lambda first=first, other=other: passes(first, other))  # type: ignore[misc]
        assert passes(other, first)
    return made


def flows(chassis: Chassis) -> list[str]:
    """Those of ours."""
    said = OpenVSwitch(chassis.root).ask_switch("bridge/dump-flows", "br-int")
    return [line for line in said.splitlines() if f"priority={PRIORITY}," in line]


def test_established_connections_survive(moving: Moving) -> None:
    """Also where the one who did not begin is the first to say something, which nothing but their tracking lets in."""
    made, acls = every_kind(moving), moving.net.northbound.rows("ACL", "_uuid", "match")
    assert not is_let_in(moving, FORBIDDEN)
    assert moving.migrate() == "5 connections"
    assert {kind: passes(other, first) for kind, (first, other) in made.items()} == dict.fromkeys(made, True)
    assert {kind: passes(first, other) for kind, (first, other) in made.items()} == dict.fromkeys(made, True)
    assert moving.net.northbound.rows("ACL", "_uuid", "match") == acls
    assert flows(moving.there) == []


def test_without_their_tracking_they_do_not(moving: Moving) -> None:
    made = every_kind(moving)
    moving.migrate(with_them=False)
    assert {kind: passes(other, first, NOT_S) for kind, (first, other) in made.items()} == dict.fromkeys(made, False)


def test_what_is_forbidden_stays_so(moving: Moving) -> None:
    """While they are asked for, and afterwards; also what looks as if it belonged to one that nobody knows."""
    every_kind(moving)
    seen: list[bool] = []
    ended = threading.Event()

    def try_again() -> None:
        while not ended.is_set():
            seen.append(is_let_in(moving, FORBIDDEN))

    trying = threading.Thread(target=try_again)
    trying.start()
    moving.migrate()
    ended.set()
    trying.join()
    stray = tcp(Way(source=PEER.address, destination=WEB.address, ports=(5555, FORBIDDEN)), 1, 1)
    moving.peer.wire.send(octets(WEB.mac) + octets(PEER.mac) + stray[12:])
    assert set(seen) == {False}
    assert not is_let_in(moving, FORBIDDEN)
    assert is_let_in(moving, SERVICE)


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


class Stream:
    """One end sends all the time, and the other reads, until it is ended: what came must be what was sent."""

    def __init__(self, of: socket.socket, to: socket.socket) -> None:
        self._of, self._to = of, to
        self._sent, self._came = hashlib.sha256(), hashlib.sha256()
        self.count = 0
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._send, self._read)]
        of.settimeout(30)
        to.settimeout(30)
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._ending.is_set():
            data = os.urandom(1 << 14)
            self._of.sendall(data)
            self._sent.update(data)
        self._of.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        while data := self._to.recv(1 << 16):
            self._came.update(data)
            self.count += len(data)

    def stop(self) -> None:
        self._ending.set()

    def end(self) -> bool:
        """Whether all came."""
        self.stop()
        for thread in self._threads:
            thread.join(30)
        return self._sent.digest() == self._came.digest()


@pytest.mark.parametrize("guest_sends", [True, False], ids=["the-guest-sends", "the-peer-sends"])
def test_one_that_is_full_of_data_goes_on(moving: Moving, *, guest_sends: bool) -> None:
    """What is under way when the guest stops is lost, or its acknowledgment is; it is sent again from long before."""
    first, other = moving.connect(moving.peer, SERVICE) if guest_sends else moving.connect(moving.guest, THEIRS)
    stream = Stream(other, first)
    until(lambda: stream.count > 1 << 20)
    assert moving.migrate(meanwhile=lambda: time.sleep(0.5)) == "1 connection"
    seen = stream.count
    until(lambda: stream.count > seen + (1 << 20), within_s=10)
    assert stream.end()


def test_one_that_the_guest_has_ended_is_not_made_known_nor_its_peer_told_of_it(moving: Moving) -> None:
    (of_peer, kept), (alone, gone) = (moving.connect(moving.peer, SERVICE) for _ in range(2))

    def end() -> None:
        """Nobody hears of it: the guest has no link."""
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()

    said = moving.migrate(meanwhile=end)
    assert said == "1 connection, 1 refused: the guest has not told their numbers"
    assert passes(kept, of_peer)
    alone.settimeout(NOT_S)
    with pytest.raises(TimeoutError):
        alone.recv(1)


def test_flows_of_an_agent_that_died_end_by_themselves(moving: Moving) -> None:
    way = Way(source=WEB.address, destination=PEER.address, ports=(SERVICE, 4000))
    with Pipeline(moving.there.root / "run/openvswitch/br-int.mgmt", CONTROLLER) as pipeline:
        found = tcp_from(1, way)
        pipeline.add_flow(found, to_controller(CONTROLLER), cookie=1, priority=PRIORITY, ends_after_s=1)
        pipeline.barrier()
    assert len(flows(moving.there)) == 1
    until(lambda: flows(moving.there) == [])


async def test_what_was_put_for_a_migration_that_was_undone_is_not_there_the_next_time(moving: Moving) -> None:
    """OVN clears a zone before it uses it for a port."""
    _, there = moving.agents
    way = Way(source=PEER.address, destination=WEB.address, ports=(4000, DATAGRAMS))
    put = PutPortConnections(guest=GUEST, mac=MAC, connections=(PortConnection(protocol=17, way=way),))
    tracked = ReadPortConnections(guest=GUEST, mac=MAC)
    await moving.bind("c1", "c2")
    assert (await there.call(put)).taken == 1
    assert (await there.call(tracked)).connections == put.connections
    await moving.bind("c1")
    with pytest.raises(Problem, match="not bound on this host"):
        await there.call(tracked)
    await moving.bind("c1", "c2")
    assert (await there.call(tracked)).connections == ()
