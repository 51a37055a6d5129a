"""Which NICs are announced, by which interface, with which addresses."""

import pytest
from msgspec import structs

from fakes import facts as f
from fakes.samples import MAC
from vferry.model.guest import GuestAddress, GuestLink, Nic
from vferry.plan.facts import Facts
from vferry.plan.plan import Announced, NetworkMode

PLAIN = "52:54:00:00:aa:01"


def address(text: str, scope: str = "global") -> GuestAddress:
    return GuestAddress(address=text, prefix=24, family="inet6" if ":" in text else "inet", scope=scope)


VF = GuestLink(name="eth0", mac=MAC, driver="igbvf", addresses=(address("192.0.2.7"), address("2001:db8::7")))


@pytest.mark.parametrize(
    ("links", "addresses"),
    [
        ((VF,), ("192.0.2.7", "2001:db8::7")),
        ((structs.replace(VF, addresses=(address("fe80::1", "link"), address("192.0.2.7"))),), ("192.0.2.7",)),
        ((structs.replace(VF, addresses=tuple(map(address, ("nonsense", "224.0.0.1", "::", "127.0.0.1")))),), ()),
        ((VF, structs.replace(VF, name="eth0.7", driver=None, kind="vlan")), ("192.0.2.7", "2001:db8::7")),
        (
            (
                structs.replace(VF, addresses=(), master="bond0"),
                GuestLink(name="ens1", mac=MAC, driver="virtio_net", master="bond0"),
                GuestLink(name="bond0", mac=MAC, kind="bond", addresses=(address("192.0.2.9"),)),
            ),
            ("192.0.2.9",),
        ),
        ((VF, structs.replace(VF, name="fo0", driver="virtio_net")), ("192.0.2.7", "2001:db8::7")),
        ((VF, GuestLink(name="other", mac=PLAIN, addresses=(address("198.51.100.1"),))), ("192.0.2.7", "2001:db8::7")),
    ],
)
def test_a_vf_is_announced_with_what_the_guest_has_on_it(
    links: tuple[GuestLink, ...], addresses: tuple[str, ...]
) -> None:
    standby = Nic(mac=MAC, model="virtio", alias="ua-standby", bridge="br0")

    def change(facts: Facts) -> Facts:
        return f.both(f.inside(links=links), f.guest(nics=(*facts.guest.nics, standby)))(facts)

    assert f.planned(change).announced == (Announced(mac=MAC, interface="pf0", addresses=addresses),)


def test_a_guest_that_is_silent_is_announced_by_its_mac() -> None:
    plan = f.planned(f.silent, accept_interruption=True)
    assert plan.announced == (Announced(mac=MAC, interface="pf0"),)
    assert not plan.routes_ipv6


def test_addresses_that_the_next_nic_may_still_look_for_are_not_announced() -> None:
    settings = structs.replace(f.SETTINGS, vlan=42)
    change = f.both(f.inside(links=(VF,)), f.vf("source", 1, settings=settings))
    plan = f.planned(change, mode=NetworkMode.DETACH)
    assert plan.announced == (Announced(mac=MAC, interface="pf0", vlan=42),)


def test_a_nic_on_a_bridge_is_announced_by_the_uplink_of_its_network() -> None:
    plain = Nic(mac=PLAIN, model="virtio", alias="net1", bridge="br0")
    other = Nic(mac="52:54:00:00:aa:02", model="virtio", alias="net2", bridge="br9")
    inside = GuestLink(name="eth0", mac=PLAIN, driver="virtio_net", addresses=(address("192.0.2.8"),))
    plan = f.planned(f.both(f.guest(nics=(plain, other)), f.inside(links=(inside,), routes_ipv6=True)))
    assert plan.network_mode == "virtio"
    assert plan.announced == (Announced(mac=PLAIN, interface="pf0", addresses=("192.0.2.8",)),)
    assert plan.routes_ipv6
