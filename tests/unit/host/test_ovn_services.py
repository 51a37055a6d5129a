"""What OVN does for a guest beside its filters goes on where that has migrated to, with OVN itself."""

import contextlib
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from ovn_chassis import Chassis, Guest, Logical, Ovn, acl, as_root, mapped, ovn, until
from ovn_frames import datagram, octets, received
from ovn_moving import Traveller, passes

from fakes.samples import MAC

pytestmark = as_root

WEB = Logical(name="web-0", mac=MAC, address="10.0.0.1")
OTHER = Logical(name="web-1", mac="52:54:00:00:00:03", address="10.0.0.3")
PEER = Logical(name="peer-0", mac="52:54:00:00:00:02", address="10.0.0.2")
CLIENT = Logical(name="client-0", mac="52:54:00:00:00:04", address="10.0.1.4")
INSIDE, OUTSIDE = ("0a:00:00:00:00:01", "10.0.0.254"), ("0a:00:00:00:00:02", "10.0.1.254")
"""A router's two ends."""
VIP, SERVICE, BEHIND = "10.0.9.9", 80, 8080
SINK = Logical(name="sink", mac="52:54:00:00:00:99", address="192.0.2.9")
"""On the underlay."""
TOS, TTL, SOURCE = slice(15, 16), slice(22, 23), slice(26, 30)
"""Where they are in a frame of IPv4's."""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ovn]:
    monkeypatch.setattr("vferry.host.announcing.TIMES_S", (0.0,))
    with ovn(tmp_path) as made:
        yield made


# --- a router, and a balancer before it ------------------------------------------------------------------


class Routed:
    """The guest and another one that does the same, behind a router, and a client before it."""

    def __init__(self, net: Ovn) -> None:
        net.add_switch("inside", WEB, OTHER)
        net.add_switch("outside", CLIENT)
        net.route(inside=INSIDE, outside=OUTSIDE)
        there = net.chassis["c2"]
        self.other, self.client = there.plug(OTHER), there.plug(CLIENT)
        for each, (_, gateway) in ((self.other, INSIDE), (self.client, OUTSIDE)):
            each.namespace.run(["ip", "route", "add", "default", "via", gateway])
        self.traveller = Traveller(net, WEB, f"route add default via {INSIDE[1]}")
        self.guest = self.traveller.guest


@pytest.fixture
def routed(net: Ovn) -> Iterator[Routed]:
    made = Routed(net)
    with contextlib.closing(made.traveller):
        yield made


def test_a_router_goes_on_between_it_and_other_networks(routed: Routed) -> None:
    guest, client = routed.guest, routed.client

    def passes(of: Guest, to: Guest, by: tuple[str, str], last: tuple[str, str]) -> bool:
        """Whether the router passes it on, as routers do."""
        gateway = Logical(name="", mac=by[0], address=to.port.address)
        got = received([datagram(gateway, of.port)], of, to)
        return [(each[:12], each[TTL]) for each in got] == [(octets(to.port.mac) + octets(last[0]), bytes((63,)))]

    def check() -> None:
        until(lambda: passes(client, guest, OUTSIDE, INSIDE))
        until(lambda: passes(guest, client, INSIDE, OUTSIDE))
        assert received([datagram(WEB, CLIENT)], client, guest) == []

    check()
    routed.traveller.migrate()
    check()


Connection = tuple[socket.socket, socket.socket]
"""The client's end, and that of who serves it."""


class Served:
    """A client, and two guests that serve it."""

    def __init__(self, stack: contextlib.ExitStack, client: Guest, *guests: Guest) -> None:
        self._stack, self._client, self._guests = stack, client, guests
        self._listening = [each.endpoint(socket.SOCK_STREAM, BEHIND) for each in guests]
        for each in self._listening:
            each.listen()

    def connect(self, address: str = VIP, port: int = SERVICE) -> tuple[Connection, Guest] | None:
        """A connection, and who serves it; None if none comes about."""
        near = self._client.endpoint(socket.SOCK_STREAM)
        near.settimeout(0.5)
        try:
            near.connect((address, port))
        except TimeoutError:
            near.close()
            return None
        while True:
            (ready, *_), _, _ = select.select(self._listening, [], [], 5.0)
            far, of = ready.accept()
            self._stack.enter_context(far)
            if of == near.getsockname():
                return (near, far), self._guests[self._listening.index(ready)]

    def by(self, guest: Guest) -> Connection:
        """A connection that a certain one serves: it may be any of them."""
        for _ in range(50):
            if (made := self.connect()) is not None and made[1] is guest:
                return made[0]
        raise AssertionError("none comes about")


@pytest.mark.parametrize("with_them", [True, False], ids=["tracked", "not-tracked"])
def test_a_balancer_goes_on_giving_it_connections(net: Ovn, routed: Routed, *, with_them: bool) -> None:
    """Those that are established go on where they are tracked: its filters let nobody in who does not begin one."""
    guest, other = routed.guest, routed.other
    net.give(
        "Logical_Switch",
        "inside",
        "acls",
        "ACL",
        acl("from", 1, 'inport == "web-0" && ip4', "drop"),
        acl("to", 1, 'outport == "web-0" && ip4', "drop"),
        acl("to", 2, f'outport == "web-0" && tcp.dst == {BEHIND}', "allow-related"),
    )
    with contextlib.ExitStack() as stack:
        served = Served(stack, routed.client, guest, other)
        for each in (guest, other):
            until(lambda each=each: served.connect(each.port.address, BEHIND))  # type: ignore[misc]
        assert served.connect() is None
        vips = {f"{VIP}:{SERVICE}": ",".join(f"{each.port.address}:{BEHIND}" for each in (guest, other))}
        balancer = {"name": "lb", "protocol": "tcp", "vips": mapped(vips)}
        net.give("Logical_Switch", "outside", "load_balancer", "Load_Balancer", balancer)
        established = served.by(guest), served.by(other)
        assert all(passes(*each) for each in established)
        routed.traveller.migrate(with_them=with_them)
        near, far = established[0]
        assert passes(far, near, within_s=2.0 if with_them else 0.5) == with_them
        for near, far in (served.by(guest), served.by(other), established[1]):
            assert passes(near, far)
            assert passes(far, near)


@pytest.mark.parametrize("with_them", [True, False], ids=["tracked", "not-tracked"])
def test_a_connection_of_its_own_stays_with_whom_a_balancer_gave_it_to(
    net: Ovn, routed: Routed, *, with_them: bool
) -> None:
    """Also where that one is the first to say something: else that would come from whom the guest does not know."""
    net.give(
        "Logical_Switch",
        "inside",
        "acls",
        "ACL",
        acl("from", 1, 'inport == "web-0" && ip4', "drop"),
        acl("to", 1, 'outport == "web-0" && ip4', "drop"),
        # OVN looks at it with its first packet as it was sent, and with the others as they go on.
        acl("from", 2, f'inport == "web-0" && tcp.dst == {{{SERVICE}, {BEHIND}}}', "allow-related"),
    )
    balancer = {"name": "lb", "protocol": "tcp", "vips": mapped({f"{VIP}:{SERVICE}": f"{CLIENT.address}:{BEHIND}"})}
    net.give("Logical_Switch", "inside", "load_balancer", "Load_Balancer", balancer)
    with contextlib.ExitStack() as stack:
        near, far = Served(stack, routed.guest, routed.client).by(routed.client)
        assert passes(near, far)
        said = routed.traveller.migrate(with_them=with_them)
        assert said == ("1 connection" if with_them else "")
        assert passes(far, near, within_s=2.0 if with_them else 0.5) == with_them
        assert passes(near, far) or not with_them


# --- limits, marks, mirrors ------------------------------------------------------------------------------


@pytest.fixture
def neighbours(net: Ovn) -> Iterator[tuple[Traveller, Guest]]:
    """The guest, and one on its switch."""
    net.add_switch("ls", WEB, PEER)
    peer = net.chassis["c2"].plug(PEER)
    with contextlib.closing(Traveller(net, WEB)) as traveller:
        until(lambda: received([datagram(PEER, WEB)], traveller.guest, peer))
        yield traveller, peer


def test_what_limits_and_marks_it_goes_along(net: Ovn, neighbours: tuple[Traveller, Guest]) -> None:
    """By a meter of the switch's, which lets as much pass at once as it may, and then a frame or two a second."""
    traveller, peer = neighbours

    def marks() -> list[bytes]:
        """Of what comes of a hundred."""
        return [each[TOS] for each in received([datagram(PEER, WEB) for _ in range(100)], traveller.guest, peer)]

    def limited() -> bool:
        found = marks()
        return set(found) == {bytes((46 << 2,))} and len(found) < 50

    until(lambda: marks() == [bytes((0,))] * 100)
    rule = {"priority": 1, "direction": "from-lport", "match": 'inport == "web-0" && udp'}
    limits = {"bandwidth": mapped({"rate": 1, "burst": 10}), "action": mapped({"dscp": 46})}
    net.give("Logical_Switch", "ls", "qos_rules", "QoS", {**rule, **limits})
    until(limited)  # flows of before are done away with a moment later
    traveller.migrate()
    until(limited)


def test_its_mirrors_are_sent_from_where_it_is_and_from_nowhere_else(
    net: Ovn, neighbours: tuple[Traveller, Guest]
) -> None:
    traveller, peer = neighbours
    here, there = net.chassis.values()
    sink = there.plug(SINK, bridge="phy")

    def seen() -> list[set[bytes]]:
        """By whom the sink is sent what the guest sends, and what it is sent."""
        ways = (datagram(PEER, WEB), traveller.guest), (datagram(WEB, PEER), peer)
        return [{each[SOURCE] for each in received([frame], of, sink)} for frame, of in ways]

    assert seen() == [set(), set()]
    mirrors = [
        {"name": f"m{at}", "filter": f"{way}-lport", "sink": SINK.address, "type": "gre", "index": at}
        for at, way in enumerate(("from", "to"))
    ]
    net.give("Logical_Switch_Port", WEB.name, "mirror_rules", "Mirror", *mirrors)
    until(lambda: seen() == [{address(here)}] * 2)
    traveller.migrate()
    until(lambda: seen() == [{address(there)}] * 2)
    until(lambda: here.store.rows("Mirror", "name") == [])
    assert seen() == [{address(there)}] * 2


def address(of: Chassis) -> bytes:
    return socket.inet_aton(of.address)
