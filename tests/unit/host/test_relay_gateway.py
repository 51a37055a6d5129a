"""A VLAN's gateway behind GRE, on a real Open vSwitch in user space: what leaves, what comes back, and to whom.

The gateway is a socket of AF_PACKET; GRE is written and read here, by RFC 2784 and RFC 2890.
"""

import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ovn_chassis import Guest, Logical, as_root, until
from ovn_frames import NOT_S, OUTGOING, arp, datagram, ipv4, octets, reached, tagged
from switch_ground import BRIDGE, OUTSIDE, Switch, switch

from vferry.host.announcement import BROADCAST
from vferry.host.api import SetRelayGateway
from vferry.host.relay_gateway import set_gateway
from vferry.model.problem import Problem
from vferry.model.relay import RelayGateway

GRE, KEYED, ETHERNET = 47, 0x2000, 0x6558
RELAY = "192.0.2.1"
ROUTER = Logical(name="router", mac="02:00:00:00:00:fe", address="10.0.0.254")
"""Behind the tunnels: of all tenants the same."""
SEVEN = Logical(name="seven", mac="52:54:00:00:00:01", address="10.0.0.1")
EIGHT = replace(SEVEN, name="eight", mac="52:54:00:00:00:08")
"""Of another tenant's, with the same address."""
BESIDE = replace(SEVEN, name="beside", mac="52:54:00:00:00:02", address="10.0.0.2")

TO_SEVEN = RelayGateway(bridge=BRIDGE, vlan=7, remote=OUTSIDE.address, key=1007)
TO_EIGHT = RelayGateway(bridge=BRIDGE, vlan=8, remote=OUTSIDE.address, key=1008)

pytestmark = as_root


def give_address(made: Switch) -> None:
    until(lambda: f"{BRIDGE}:" in Path(f"/proc/{made.namespace.pid}/net/dev").read_text(), made.daemon)
    for line in (f"address replace {RELAY}/24 dev {BRIDGE}", f"link set {BRIDGE} up", "link set lo up"):
        made.namespace.run(["ip", *line.split()])
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


def in_gre(made: Switch, key: int | None, frame: bytes, of: str = OUTSIDE.address) -> bytes:
    """What the gateway sends to the relay."""
    head = struct.pack("!HH", 0 if key is None else KEYED, ETHERNET) + (b"" if key is None else struct.pack("!I", key))
    return octets(mac_of(made)) + octets(OUTSIDE.mac) + b"\x08\x00" + ipv4(RELAY, of, GRE, head + frame)


def leaves(made: Switch, of: Guest, frame: bytes) -> list[tuple[int, bytes]]:
    """What the gateway gets of a frame that a guest sends, by key."""
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
        if place[2] == OUTGOING or got[12:14] != b"\x08\x00" or got[23] != GRE:
            continue
        flags, protocol, key = struct.unpack_from("!HHI", got, 34)
        assert (flags, protocol) == (KEYED, ETHERNET)
        if got.endswith(frame[-8:]):
            found.append((key, got[42:]))
    return found


def once_known(made: Switch, of: Guest) -> None:
    """Until the relay knows where the gateway is: it asks for its MAC before the first frame."""
    until(lambda: leaves(made, of, arp(ROUTER, of.port, reply=False)), made.daemon)


def test_tenants_with_the_same_addresses_reach_their_own(made: Switch) -> None:
    seven, eight, beside = made.plug(SEVEN, 7), made.plug(EIGHT, 8), made.plug(BESIDE, 7)
    asks = arp(ROUTER, SEVEN, reply=False)
    assert leaves(made, seven, asks) == [], "there is no gateway yet"
    assert lead(made, TO_SEVEN, TO_EIGHT) == [True, True]
    assert lead(made, TO_SEVEN, TO_EIGHT) == [False, False]
    for guest, key in ((seven, 1007), (eight, 1008)):
        once_known(made, guest)
        frame = arp(ROUTER, guest.port, reply=False)
        assert leaves(made, guest, frame) == [(key, frame)]
    # What comes back goes to the guest of that tenant alone, though both asked from one address for one.
    for guest, key in ((seven, 1007), (eight, 1008)):
        answer = in_gre(made, key, arp(guest.port, ROUTER, reply=True))
        assert reached([answer], made.outside, seven, eight, beside) == [guest]
        packet = datagram(ROUTER, guest.port)
        assert leaves(made, guest, packet) == [(key, packet)]
    assert leaves(made, seven, datagram(BESIDE, SEVEN)) == [], "what is for a guest here stays here, once it was seen"


def test_nobody_else_speaks_for_the_gateway(made: Switch) -> None:
    seven, eight = made.plug(SEVEN, 7), made.plug(EIGHT, 8)
    lead(made, TO_SEVEN, TO_EIGHT)
    once_known(made, seven)

    def broadcast() -> bytes:
        return arp(SEVEN, ROUTER, reply=False)

    assert reached([in_gre(made, 1007, broadcast())], made.outside, seven, eight) == [seven], "so it is heard"
    for frame in (
        in_gre(made, 1009, broadcast()),
        in_gre(made, None, broadcast()),
        in_gre(made, 1007, broadcast(), of="192.0.2.8"),
        tagged(in_gre(made, 1007, broadcast()), 7),
        tagged(in_gre(made, 1007, broadcast()), 9),
    ):
        assert reached([frame], made.outside, eight) == []
    # A guest, of a tenant, in its own VLAN or with a tag of its own, to another tenant.
    forged = in_gre(made, 1008, broadcast())
    assert reached([forged, tagged(forged, 8), tagged(forged, 0)], seven, eight) == []


@pytest.mark.parametrize("outer", [7, 8])
def test_a_tag_within_the_tunnel_leads_to_no_other_vlan(made: Switch, outer: int) -> None:
    seven, eight = made.plug(SEVEN, 7), made.plug(EIGHT, 8)
    lead(made, TO_SEVEN)
    once_known(made, seven)
    assert reached([in_gre(made, 1007, tagged(arp(SEVEN, ROUTER, reply=False), outer))], made.outside, eight) == []


def test_after_a_restart_of_the_switch_it_is_there_by_itself(made: Switch) -> None:
    seven = made.plug(SEVEN, 7)
    lead(made, TO_SEVEN)
    once_known(made, seven)
    made.daemon.end()
    assert leaves(made, seven, arp(ROUTER, SEVEN, reply=False)) == []
    made.daemon.start()
    once_known(made, seven)
    frame = in_gre(made, 1007, datagram(SEVEN, ROUTER))
    assert reached([frame], made.outside, seven) == [seven]


def test_tunnels_go_in_the_vlan_of_the_bridge_s_own_port(made: Switch) -> None:
    seven = made.plug(SEVEN, 7)
    lead(made, TO_SEVEN)
    once_known(made, seven)
    answer = in_gre(made, 1007, arp(SEVEN, ROUTER, reply=True))
    assert reached([tagged(answer, 5)], made.outside, seven) == []
    row = {"tag": 5}
    made.store.transact({"op": "update", "table": "Port", "where": [["name", "==", BRIDGE]], "row": row})
    until(lambda: reached([tagged(answer, 5)], made.outside, seven), made.daemon)
    assert reached([answer], made.outside, seven) == []
    frame = arp(ROUTER, SEVEN, reply=False)
    assert leaves(made, seven, frame) == [(1007, frame)]


def test_taken_back_nothing_leaves_any_more(made: Switch) -> None:
    seven, eight = made.plug(SEVEN, 7), made.plug(EIGHT, 8)
    lead(made, TO_SEVEN, TO_EIGHT)
    once_known(made, seven)
    assert lead(made, TO_SEVEN, present=False) == [True]
    assert lead(made, TO_SEVEN, present=False) == [False]
    assert leaves(made, seven, arp(ROUTER, SEVEN, reply=False)) == []
    assert reached([in_gre(made, 1007, datagram(SEVEN, ROUTER))], made.outside, seven) == []
    once_known(made, eight)


def test_another_gateway_takes_its_place(made: Switch) -> None:
    seven = made.plug(SEVEN, 7)
    lead(made, TO_SEVEN)
    once_known(made, seven)
    other = RelayGateway(bridge=BRIDGE, vlan=7, remote=OUTSIDE.address, key=5)
    assert lead(made, other) == [True]
    frame = arp(ROUTER, SEVEN, reply=False)
    assert leaves(made, seven, frame) == [(5, frame)]


def test_without_a_way_to_it_that_is_said_and_it_works_once_there_is_one(made: Switch) -> None:
    seven = made.plug(SEVEN, 7)
    made.namespace.run(["ip", "address", "flush", "dev", BRIDGE])
    until(lambda: BRIDGE not in made.daemon_routes(), made.daemon)
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
    assert leaves(made, seven, frame) == [(1007, frame)]
    assert reached([frame], seven, eight) == []
