"""Whose connections go along: those of addresses that the guest has on a bridge, for now or for good."""

import pytest

from fakes import facts as f
from fakes.samples import MAC
from vferry.host.api import MOST_ADDRESSES
from vferry.model.guest import GuestAddress, GuestLink, Nic
from vferry.plan.plan import NetworkMode

PLAIN = "52:54:00:00:aa:01"
SWITCH, DETACH = NetworkMode.SWITCH, NetworkMode.DETACH


def link(mac: str, *addresses: str, scope: str = "global") -> GuestLink:
    found = (GuestAddress(address=each, prefix=24, family="inet", scope=scope) for each in addresses)
    return GuestLink(name=f"eth{mac[-1]}", mac=mac, driver="igbvf" if mac == MAC else None, addresses=tuple(found))


LINKS = (link(MAC, "192.0.2.7", "2001:db8::7"), link(PLAIN, "192.0.2.8"))


@pytest.mark.parametrize(
    ("source", "destination", "mode", "links", "addresses"),
    [
        (1, 0, SWITCH, LINKS, ("192.0.2.7", "2001:db8::7", "192.0.2.8")),
        (1, 9, DETACH, LINKS, ("192.0.2.8",)),
        (1, None, SWITCH, LINKS, ()),
        (0, 9, SWITCH, LINKS, ()),
        (None, 9, SWITCH, LINKS, ()),
        (1, 1, SWITCH, LINKS[:1], ("192.0.2.7", "2001:db8::7")),
        (1, 1, SWITCH, (*LINKS[:1], link(PLAIN, "192.0.2.7")), ("192.0.2.7", "2001:db8::7")),
        (1, 1, DETACH, (*LINKS[:1], link(PLAIN, "fe80::1", scope="link")), ()),
        (1, 1, DETACH, (*LINKS[:1], link(PLAIN, "nonsense")), ()),
    ],
)
def test_the_addresses(
    source: int | None,
    destination: int | None,
    mode: NetworkMode,
    links: tuple[GuestLink, ...],
    addresses: tuple[str, ...],
) -> None:
    change = f.both(
        f.inside(links=links), f.host("source", connections=source), f.host("destination", connections=destination)
    )
    assert f.planned(change, mode=mode).tracked == addresses


def test_no_more_than_may_be_asked_for() -> None:
    many = link(PLAIN, *(f"10.0.{at // 250}.{at % 250 + 1}" for at in range(MOST_ADDRESSES + 1)))
    plain = Nic(mac=PLAIN, model="virtio", alias="net1", bridge="br0")
    change = f.both(
        f.guest(nics=(plain,)),
        f.inside(links=(many,)),
        f.host("source", connections=1),
        f.host("destination", connections=1),
    )
    assert len(f.planned(change).tracked) == MOST_ADDRESSES
