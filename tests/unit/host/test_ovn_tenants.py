"""What OVN keeps apart, and goes on keeping apart where vferry moves a guest: tenants, and connections."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path

import pytest
from ovn_chassis import GENEVE, VXLAN, Guest, Logical, Ovn, acl, as_root, ovn, until
from ovn_frames import arp, datagram, reached, tagged, tunnelled

from vferry.controller.northbound import Northbound
from vferry.host.api import SetBinding
from vferry.model.ovn import LogicalPort

pytestmark = as_root

VICTIM = Logical(name="red-0", mac="52:54:00:00:00:01", address="10.0.0.1")
FRIEND = Logical(name="red-1", mac="52:54:00:00:00:02", address="10.0.0.2")
HOSTILE = Logical(name="blue-0", mac="52:54:00:00:00:66", address="10.0.0.66")
DOUBLE = Logical(name="blue-1", mac=FRIEND.mac, address=FRIEND.address)
"""Another tenant's, with the same MAC and address."""


@pytest.fixture
def net(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ovn]:
    """With Geneve, or what a test asks for."""
    with ovn(tmp_path, getattr(request, "param", GENEVE)) as made:
        yield made


def disguised(as_whom: Logical, mac: str = "") -> Logical:
    """The hostile guest under somebody's address, and MAC if none is said."""
    return Logical(name="", mac=mac or as_whom.mac, address=as_whom.address)


@pytest.mark.parametrize("net", [GENEVE, VXLAN], indirect=True)
def test_tenants_with_the_same_addresses_do_not_reach_each_other_whatever_they_send(net: Ovn) -> None:
    first, second = net.chassis.values()
    net.add_switch("red", VICTIM, FRIEND)
    net.add_switch("blue", HOSTILE, DOUBLE)
    victim, hostile = first.plug(VICTIM), first.plug(HOSTILE)
    friend, double = second.plug(FRIEND), second.plug(DOUBLE, "double")
    net.settle()
    until(lambda: reached([datagram(VICTIM, FRIEND)], friend, victim, hostile, double) == [victim])
    until(lambda: reached([datagram(FRIEND, HOSTILE)], hostile, victim, friend, double) == [double])
    keys = net.southbound.rows("Datapath_Binding", "tunnel_key")
    networks, ports = [row["tunnel_key"] for row in keys], range(1, 4)
    underlay = [each.address for each in net.chassis.values()]
    spoofed = [
        each
        for whom, to in ((FRIEND, VICTIM), (VICTIM, FRIEND))
        for of in (disguised(whom), disguised(whom, HOSTILE.mac), HOSTILE)
        for each in (datagram(to, of), arp(to, of, reply=True), arp(to, of, reply=False))
    ]
    in_vlans = [tagged(each, *vlans) for each in spoofed for vlans in ((0,), (1,), (4095,), *product(networks, ports))]
    in_tunnels = [
        frame
        for each in spoofed[:2]
        for network, *keys in product(networks, ports, ports)
        for to in underlay
        for of in (HOSTILE, Logical(name="", mac=HOSTILE.mac, address=underlay[1]))
        for frame in tunnelled(each, network, (keys[0], keys[1]), to, of)
    ]
    for frames in (spoofed, in_vlans, in_tunnels):
        assert reached(frames, hostile, victim, friend) == []
    until(lambda: reached([datagram(VICTIM, FRIEND)], friend, victim, hostile, double) == [victim])


def test_a_guest_does_not_pass_for_its_neighbour(net: Ovn) -> None:
    first, second = net.chassis.values()
    net.add_switch("red", VICTIM, FRIEND, HOSTILE)
    victim, friend, hostile = first.plug(VICTIM), second.plug(FRIEND), first.plug(HOSTILE)
    net.settle()
    until(lambda: reached([datagram(VICTIM, HOSTILE)], hostile, victim, friend) == [victim])
    spoofed = [
        frame
        for of in (disguised(FRIEND), disguised(FRIEND, HOSTILE.mac))
        for frame in (datagram(VICTIM, of), arp(VICTIM, of, reply=True), arp(VICTIM, of, reply=False))
    ]
    assert reached(spoofed, hostile, victim, friend) == []
    assert reached([tagged(each, 1) for each in spoofed], hostile, victim, friend) == []


# --- connections -----------------------------------------------------------------------------------------


def closed_from_outside(net: Ovn, port: Logical) -> None:
    """Lets a guest open connections, and nobody to it."""
    net.give(
        "Logical_Switch",
        "red",
        "acls",
        "ACL",
        acl("from", 1000, f'inport == "{port.name}" && ip', "allow-related"),
        acl("to", 1000, f'outport == "{port.name}" && ip', "drop"),
    )


def connects(of: Guest, to: Guest, port: int) -> bool:
    """Whether a TCP connection comes about, and carries something both ways."""
    with closing(to.endpoint(socket.SOCK_STREAM, port)) as listening, closing(of.endpoint(socket.SOCK_STREAM)) as near:
        listening.listen()
        try:
            near.connect((to.port.address, port))
        except TimeoutError:
            return False
        far, _ = listening.accept()
        with far:
            near.sendall(b"there")
            assert far.recv(5) == b"there"
            far.sendall(b"back")
            return near.recv(4) == b"back"


def bind(net: Ovn, **options: str) -> None:
    asyncio.run(Northbound(net.settings).call(SetBinding(port=LogicalPort(name=VICTIM.name, **options))))
    net.settle()


def test_what_filters_a_guest_s_connections_follows_it(net: Ovn) -> None:
    first, second = net.chassis.values()
    net.add_switch("red", VICTIM, FRIEND)
    here, friend = first.plug(VICTIM), second.plug(FRIEND)
    net.settle()
    bind(net, requested_chassis="c1")
    there = second.plug(VICTIM)
    until(lambda: connects(friend, here, 80))
    closed_from_outside(net, VICTIM)

    def check(guest: Guest) -> None:
        until(lambda: connects(guest, friend, 443))
        assert not connects(friend, guest, 80)
        assert reached([datagram(VICTIM, FRIEND)], friend, here, there) == []

    check(here)
    bind(net, requested_chassis="c1,c2", activation_strategy="rarp")
    bind(net, requested_chassis="c2")
    check(there)
