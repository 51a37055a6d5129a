"""A VLAN's gateway behind GRE, on a real Open vSwitch in user space: what leaves, what comes back, and to whom.

The gateway is a socket of AF_PACKET; GRE (RFC 2784, RFC 2890) and MPLS (RFC 3032) in it are written and read here.
"""

import contextlib
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from ovn_chassis import Guest, Logical, as_root, until
from ovn_frames import NOT_S, OUTGOING, TRIES, arp, arrives, datagram, ipv4, octets, reached, tagged
from switch_ground import BRIDGE, OUTSIDE, Switch, switch

from vferry.host.announcement import BROADCAST
from vferry.host.api import SetRelayGateway
from vferry.host.gateway_flows import mac_of as mac_of_gateway
from vferry.host.relay_far import Flows
from vferry.host.relay_gateway import set_gateway
from vferry.host.relay_names import guest_name
from vferry.model.problem import Problem
from vferry.model.relay import Relay, RelayGateway, RelayKind, RelayState

GRE, KEYED, ETHERNET, MPLS = 47, 0x2000, 0x6558, 0x8847
LAST_AND_TTL = 0x140
"""Of a label: no other one follows, and 64 more hops."""
RELAY = "192.0.2.1"
ROUTER = Logical(name="router", mac="02:00:00:00:00:fe", address="10.0.0.254")
"""Behind the tunnels: of all tenants the same."""
SEVEN = Logical(name="seven", mac="52:54:00:00:00:01", address="10.0.0.1")
EIGHT = replace(SEVEN, name="eight", mac="52:54:00:00:00:08")
"""Of another tenant's, with the same address."""
BESIDE = replace(SEVEN, name="beside", mac="52:54:00:00:00:02", address="10.0.0.2")

TO_SEVEN = RelayGateway(bridge=BRIDGE, vlan=7, remote=OUTSIDE.address, key=1007)
TO_EIGHT = RelayGateway(bridge=BRIDGE, vlan=8, remote=OUTSIDE.address, key=1008)

SEVEN_BY_LABEL = RelayGateway(bridge=BRIDGE, vlan=7, remote=OUTSIDE.address, label=100007)
EIGHT_BY_LABEL = RelayGateway(bridge=BRIDGE, vlan=8, remote=OUTSIDE.address, label=100008)
WAYS = [(TO_SEVEN, TO_EIGHT), (SEVEN_BY_LABEL, EIGHT_BY_LABEL), (TO_SEVEN, EIGHT_BY_LABEL)]
IDS = ["keys", "labels", "both"]

pytestmark = as_root


def give_address(made: Switch) -> None:
    until(lambda: f"{BRIDGE}:" in Path(f"/proc/{made.namespace.pid}/net/dev").read_text(), made.daemon)
    made.namespace.ip(f"address replace {RELAY}/24 dev {BRIDGE}", f"link set {BRIDGE} up", "link set lo up")
    until(lambda: BRIDGE in made.daemon_routes(), made.daemon)


def mac_of(made: Switch) -> str:
    (row,) = made.rows("Interface", BRIDGE, "mac_in_use")
    return str(row["mac_in_use"])


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Switch]:
    """With addresses at both ends of the tunnel; the kernel outside answers ARP for its own."""
    with switch(tmp_path) as found:
        found.outside.namespace.run(["ip", "address", "add", f"{OUTSIDE.address}/24", "dev", "eth0"])
        give_address(found)
        yield found


def lead(made: Switch, *gateways: RelayGateway, present: bool = True) -> list[bool]:
    return [set_gateway(made.root, SetRelayGateway(gateway=each, present=present)).changed for each in gateways]


def in_gre(made: Switch, told: bytes, frame: bytes, of: str = OUTSIDE.address) -> bytes:
    """What the gateway sends to the relay, with what tells whose it is."""
    head = octets(mac_of(made)) + octets(OUTSIDE.mac) + b"\x08\x00"
    return head + ipv4(RELAY, of, GRE, told + frame)


def by_key(key: int) -> bytes:
    return struct.pack("!HHI", KEYED, ETHERNET, key)


def by_label(label: int, rest: int = LAST_AND_TTL) -> bytes:
    return struct.pack("!HHI", 0, MPLS, label << 12 | rest)


def told(gateway: RelayGateway) -> bytes:
    return by_key(gateway.key or 0) if gateway.label is None else by_label(gateway.label)


def leaves(made: Switch, of: Guest, frame: bytes) -> list[tuple[bytes, bytes]]:
    """What the gateway gets of a frame that a guest sends, with what tells whose it is."""
    wire = made.outside.wire
    of.wire.send(frame)
    found = []
    ends = time.monotonic() + NOT_S
    while (left := ends - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            got, place = wire.recvfrom(2000)
        except TimeoutError:
            break
        if place[2] != OUTGOING and got[12:14] == b"\x08\x00" and got[23] == GRE and got.endswith(frame[-8:]):
            found.append((got[34:42], got[42:]))
    return found


def left(made: Switch, of: Guest, frame: bytes) -> list[tuple[bytes, bytes]]:
    """The same of one that does leave, in one of several tries."""
    found = (leaves(made, of, frame) for _ in range(TRIES))
    return list(dict.fromkeys(next(filter(None, found), [])))


def names(made: Switch) -> set[str]:
    """Of all ports of all bridges."""
    return {row["name"] for row in made.store.rows("Port", "name")}


def relay_with(*gateways: RelayGateway) -> Relay:
    return Relay(
        operation="relay-1",
        state=RelayState.ENABLED,
        kind=RelayKind.SWITCHED,
        uplinks=("pf0",),
        cores=(7,),
        gateways=gateways,
    )


def once_known(made: Switch, of: Guest) -> None:
    """Until the relay knows where the gateway is: it asks for its MAC before the first frame."""
    until(lambda: leaves(made, of, arp(ROUTER, of.port, reply=False)), made.daemon)


@pytest.mark.parametrize("ways", WAYS, ids=IDS)
def test_tenants_with_the_same_addresses_reach_their_own(made: Switch, ways: tuple[RelayGateway, RelayGateway]) -> None:
    seven, eight, beside = made.plug(SEVEN, 7), made.plug(EIGHT, 8), made.plug(BESIDE, 7)
    asks = arp(ROUTER, SEVEN, reply=False)
    assert leaves(made, seven, asks) == [], "there is no gateway yet"
    assert lead(made, *ways) == [True, True]
    assert lead(made, *ways) == [False, False]
    tenants = tuple(zip((seven, eight), ways, strict=True))
    for guest, gateway in tenants:
        once_known(made, guest)
        frame = arp(ROUTER, guest.port, reply=False)
        assert left(made, guest, frame) == [(told(gateway), frame)]
    # What comes back goes to the guest of that tenant alone, though both asked from one address for one.
    for guest, gateway in tenants:
        answer = in_gre(made, told(gateway), arp(guest.port, ROUTER, reply=True))
        assert arrives([answer], made.outside, guest, seven, eight, beside)
        packet = datagram(ROUTER, guest.port)
        assert left(made, guest, packet) == [(told(gateway), packet)]
    assert left(made, seven, datagram(BESIDE, SEVEN)), "where nobody has heard of it, it may be there, too"
    assert arrives([arp(SEVEN, BESIDE, reply=False)], beside, seven)
    assert arrives([datagram(BESIDE, SEVEN)], seven, beside)
    until(lambda: not leaves(made, seven, datagram(BESIDE, SEVEN)), made.daemon)


@pytest.mark.parametrize("ways", WAYS[:2], ids=IDS[:2])
def test_nobody_else_speaks_for_the_gateway(made: Switch, ways: tuple[RelayGateway, RelayGateway]) -> None:
    seven, eight = made.plug(SEVEN, 7), made.plug(EIGHT, 8)
    lead(made, *ways)
    once_known(made, seven)
    own, others = (told(each) for each in ways)

    def broadcast() -> bytes:
        return arp(SEVEN, ROUTER, reply=False)

    assert arrives([in_gre(made, own, broadcast())], made.outside, seven, eight), "so it is heard"
    for frame in (
        in_gre(made, by_key(1009), broadcast()),
        in_gre(made, by_label(100009), broadcast()),
        in_gre(made, by_label(100007, rest=64) + struct.pack("!I", 100008 << 12 | LAST_AND_TTL), broadcast()),
        in_gre(made, struct.pack("!HH", 0, ETHERNET), broadcast()),
        in_gre(made, own, broadcast(), of="192.0.2.8"),
        tagged(in_gre(made, own, broadcast()), 9),
    ):
        assert reached([frame], made.outside, seven, eight) == []
    # A guest, of a tenant, in its own VLAN or with a tag of its own, to another tenant.
    forged = in_gre(made, others, broadcast())
    assert reached([forged, tagged(forged, 8), tagged(forged, 0)], seven, eight) == []


@pytest.mark.parametrize("gateway", [TO_SEVEN, SEVEN_BY_LABEL], ids=IDS[:2])
def test_a_tag_within_the_tunnel_leads_to_no_other_vlan(made: Switch, gateway: RelayGateway) -> None:
    seven, eight = made.plug(SEVEN, 7), made.plug(EIGHT, 8)
    lead(made, gateway)
    once_known(made, seven)
    for vlan in (7, 8):
        frame = in_gre(made, told(gateway), tagged(arp(SEVEN, ROUTER, reply=False), vlan))
        assert reached([frame], made.outside, eight) == []


def test_after_a_restart_of_the_switch_it_is_there_by_itself(made: Switch) -> None:
    seven = made.plug(SEVEN, 7)
    lead(made, TO_SEVEN)
    once_known(made, seven)
    made.daemon.end()
    assert leaves(made, seven, arp(ROUTER, SEVEN, reply=False)) == []
    made.daemon.start()
    once_known(made, seven)
    frame = in_gre(made, told(TO_SEVEN), datagram(SEVEN, ROUTER))
    assert arrives([frame], made.outside, seven)


def test_after_a_restart_of_the_switch_labels_are_put_again_and_nothing_passes_until_then(made: Switch) -> None:
    seven, eight = made.plug(SEVEN, 7), made.plug(EIGHT, 8)
    lead(made, SEVEN_BY_LABEL, TO_EIGHT)
    labels = Flows(made.root, lambda: relay_with(SEVEN_BY_LABEL, TO_EIGHT))
    labels.follow()
    once_known(made, seven)
    made.daemon.end()
    labels.follow()
    made.daemon.start()
    once_known(made, eight)
    assert leaves(made, seven, arp(ROUTER, SEVEN, reply=False)) == []
    back = in_gre(made, told(SEVEN_BY_LABEL), datagram(SEVEN, ROUTER))
    assert reached([back], made.outside, seven, eight) == []
    labels.follow()
    once_known(made, seven)
    assert arrives([back], made.outside, seven, eight)


def test_tunnels_go_in_the_vlan_of_the_bridge_s_own_port(made: Switch) -> None:
    seven = made.plug(SEVEN, 7)
    lead(made, TO_SEVEN)
    once_known(made, seven)
    answer = in_gre(made, told(TO_SEVEN), arp(SEVEN, ROUTER, reply=True))
    assert reached([tagged(answer, 5)], made.outside, seven) == []
    row = {"tag": 5}
    made.store.transact({"op": "update", "table": "Port", "where": [["name", "==", BRIDGE]], "row": row})
    until(lambda: reached([tagged(answer, 5)], made.outside, seven), made.daemon)
    assert reached([answer], made.outside, seven) == []
    frame = arp(ROUTER, SEVEN, reply=False)
    assert left(made, seven, frame) == [(told(TO_SEVEN), frame)]


PUBLIC = Logical(name="public", mac="02:00:00:00:00:05", address="203.0.113.5")
"""Behind the gateway."""
ROUTED = [
    (structs.replace(TO_SEVEN, address=ROUTER.address), structs.replace(TO_EIGHT, address=ROUTER.address)),
    (structs.replace(SEVEN_BY_LABEL, address=ROUTER.address), structs.replace(EIGHT_BY_LABEL, address=ROUTER.address)),
]


def in_ip(gateway: RelayGateway) -> bytes:
    """What tells whose a packet without Ethernet is."""
    return told(gateway) if gateway.label else struct.pack("!HHI", KEYED, 0x0800, gateway.key or 0)


def packet(to: Logical, of: Logical) -> bytes:
    return datagram(to, of)[14:]


def to_gateway(gateway: RelayGateway, of: Logical) -> bytes:
    return mac_of_gateway(gateway.vlan) + datagram(PUBLIC, of)[6:]


def sums(header: bytes) -> int:
    return int(sum(struct.unpack("!10H", header))) % 0xFFFF


def asked_for(guest: Guest, gateway: RelayGateway) -> bytes:
    """The first 42 octets of what a guest hears that asks for the gateway's address."""
    guest.wire.send(arp(ROUTER, guest.port, reply=False))
    ends = time.monotonic() + 2
    while (left := ends - time.monotonic()) > 0:
        guest.wire.settimeout(left)
        with contextlib.suppress(TimeoutError):
            got, place = guest.wire.recvfrom(2000)
            if place[2] != OUTGOING and got[12:14] == b"\x08\x06":
                return got[:42]
    return b""


def routes(made: Switch, guest: Guest, gateway: RelayGateway) -> None:
    """What a guest sends to the gateway's MAC leaves without Ethernet, one hop further."""
    frame = to_gateway(gateway, guest.port)
    ((how, got),) = left(made, guest, frame)
    assert how == in_ip(gateway)
    assert (got[:8], got[8], got[9], got[12:]) == (frame[14:22], frame[22] - 1, frame[23], frame[26:])
    assert sums(got[:20]) == 0


@pytest.mark.parametrize("ways", ROUTED, ids=IDS[:2])
def test_a_gateway_that_takes_ip_has_its_address_answered_for(
    made: Switch, ways: tuple[RelayGateway, RelayGateway]
) -> None:
    seven, eight, beside = made.plug(SEVEN, 7), made.plug(EIGHT, 8), made.plug(BESIDE, 7)
    assert asked_for(seven, ways[0]) == b"", "nobody has it yet"
    lead(made, *ways)
    for guest, gateway in ((seven, ways[0]), (eight, ways[1])):
        back = in_gre(made, in_ip(gateway), packet(guest.port, PUBLIC))
        assert reached([back], made.outside, seven, eight, beside) == [], "whose it is nobody has said"
        mac = mac_of_gateway(gateway.vlan)
        assert asked_for(guest, gateway) == arp(guest.port, replace(ROUTER, mac=mac.hex(":")), reply=True)[:42]
        assert arrives([back], made.outside, guest, seven, eight, beside)
        routes(made, guest, gateway)
        again = in_gre(made, in_ip(gateway), packet(guest.port, PUBLIC))
        assert arrives([again], made.outside, guest, seven, eight, beside)
    assert leaves(made, seven, arp(BESIDE, SEVEN, reply=False)) == [], "what is the tenant's own stays there"
    assert leaves(made, seven, datagram(ROUTER, SEVEN)) == [], "to another MAC"
    strange = in_gre(made, in_ip(ways[0]), packet(BESIDE, PUBLIC))
    assert reached([strange], made.outside, seven, eight, beside) == []
    wrong = [in_gre(made, by_label(100009), packet(SEVEN, PUBLIC))]
    wrong.append(in_gre(made, struct.pack("!HHI", KEYED, 0x0800, 1009), packet(SEVEN, PUBLIC)))
    wrong.append(in_gre(made, struct.pack("!HH", 0, 0x0800), packet(SEVEN, PUBLIC)))
    assert reached(wrong, made.outside, seven, eight, beside) == []


@pytest.mark.parametrize("ways", ROUTED, ids=IDS[:2])
def test_what_is_learnt_of_addresses_goes_with_their_tenant(
    made: Switch, ways: tuple[RelayGateway, RelayGateway]
) -> None:
    seven, eight = made.plug(SEVEN, 7), made.plug(EIGHT, 8)
    before = names(made)
    lead(made, *ways)
    back = [in_gre(made, in_ip(each), packet(SEVEN, PUBLIC)) for each in ways]
    for guest, gateway in ((seven, ways[0]), (eight, ways[1])):
        routes(made, guest, gateway)
    assert lead(made, *ways) == [False, False]
    Flows(made.root, lambda: relay_with(*ways)).follow()
    assert arrives([back[0]], made.outside, seven, eight), "an agent that is started anew has it stay"
    moved = made.plug(replace(SEVEN, mac=BESIDE.mac), 7)
    asked_for(moved, ways[0])
    until(lambda: reached([back[0]], made.outside, moved, seven, eight) == [moved], made.daemon)
    lead(made, ways[0], present=False)
    lead(made, ways[0])
    assert reached([back[0]], made.outside, moved, seven, eight) == []
    assert arrives([back[1]], made.outside, eight, moved, seven)
    made.daemon.end()
    made.daemon.start()
    follows = Flows(made.root, lambda: relay_with(*ways))

    def again() -> bytes:
        follows.follow()
        return asked_for(seven, ways[0])

    until(again, made.daemon)
    routes(made, seven, ways[0])
    assert arrives([back[0]], made.outside, seven, eight)
    lead(made, *ways, present=False)
    assert names(made) == {*before, guest_name(BESIDE.mac)}


@pytest.mark.parametrize("ways", WAYS, ids=IDS)
def test_taken_back_nothing_leaves_any_more(made: Switch, ways: tuple[RelayGateway, RelayGateway]) -> None:
    seven, eight = made.plug(SEVEN, 7), made.plug(EIGHT, 8)
    before = names(made)
    lead(made, *ways)
    once_known(made, seven)
    assert lead(made, ways[0], present=False) == [True]
    assert lead(made, ways[0], present=False) == [False]
    assert leaves(made, seven, arp(ROUTER, SEVEN, reply=False)) == []
    assert reached([in_gre(made, told(ways[0]), datagram(SEVEN, ROUTER))], made.outside, seven) == []
    once_known(made, eight)
    assert lead(made, ways[1], present=False) == [True]
    assert names(made) == before


def test_another_gateway_takes_its_place(made: Switch) -> None:
    seven = made.plug(SEVEN, 7)
    before = names(made)
    other_key = RelayGateway(bridge=BRIDGE, vlan=7, remote=OUTSIDE.address, key=5)
    other_label = RelayGateway(bridge=BRIDGE, vlan=7, remote=OUTSIDE.address, label=16)
    lead(made, TO_SEVEN)
    once_known(made, seven)
    for gateway in (other_key, SEVEN_BY_LABEL, other_label, TO_SEVEN):
        assert lead(made, gateway) == [gateway != other_label], "another label is another flow, and no other port"
        until(lambda: leaves(made, seven, arp(ROUTER, SEVEN, reply=False)), made.daemon)
        frame = arp(ROUTER, SEVEN, reply=False)
        assert left(made, seven, frame) == [(told(gateway), frame)]
        back = in_gre(made, told(gateway), datagram(SEVEN, ROUTER))
        assert arrives([back], made.outside, seven)
    lead(made, TO_SEVEN, present=False)
    assert names(made) == before


def test_without_a_way_to_it_that_is_said_and_it_works_once_there_is_one(tmp_path: Path) -> None:
    with switch(tmp_path) as made:
        made.outside.namespace.run(["ip", "address", "add", f"{OUTSIDE.address}/24", "dev", "eth0"])
        seven = made.plug(SEVEN, 7)
        with pytest.raises(Problem) as caught:
            lead(made, TO_SEVEN)
        assert caught.value.code == "gateway-unrouted"
        assert caught.value.remedy
        give_address(made)
        assert lead(made, TO_SEVEN) == [False]
        once_known(made, seven)


def test_a_tunnel_that_the_switch_refuses_is_not_kept(made: Switch) -> None:
    lead(made, TO_SEVEN)
    twice = RelayGateway(bridge=BRIDGE, vlan=8, remote=OUTSIDE.address, key=1007)
    with pytest.raises(Problem) as caught:
        lead(made, twice)
    assert caught.value.code == "port-refused"
    assert made.rows("Port", twice.port, "name") == []
    assert lead(made, TO_SEVEN) == [False]


def test_a_broadcast_stays_with_its_tenant(made: Switch) -> None:
    seven, eight = made.plug(SEVEN, 7), made.plug(EIGHT, 8)
    lead(made, TO_SEVEN, TO_EIGHT)
    once_known(made, seven)
    frame = arp(ROUTER, SEVEN, reply=False)
    assert frame[:6] == BROADCAST
    assert left(made, seven, frame) == [(told(TO_SEVEN), frame)]
    assert reached([frame], seven, eight) == []
