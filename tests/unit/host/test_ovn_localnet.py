"""A guest whose logical switch goes out to a physical network, by OVN itself: it has a way out where it migrates to."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs
from ovn_chassis import Chassis, Guest, Logical, Ovn, as_root, mapped, ovn, until
from ovn_frames import datagram, reached
from ovn_moving import Traveller

from fakes import facts as f
from fakes.samples import MAC
from vferry.controller.northbound import Northbound
from vferry.host.ovn import read_chassis
from vferry.plan.facts import Facts

pytestmark = as_root

WEB = Logical(name="web-0", mac=MAC, address="10.0.0.1")
OUTSIDE = Logical(name="outside", mac="52:54:00:00:00:09", address="10.0.0.9")
"""On the physical network; nobody's to OVN."""
LOCALNET = {"name": "ls-lan", "type": "localnet", "addresses": "unknown", "options": mapped({"network_name": "lan"})}


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ovn]:
    """The guest's switch goes out to the network on which both chassis are, as far as these map it."""
    monkeypatch.setattr("vferry.host.announcing.TIMES_S", (0.0,))
    with ovn(tmp_path) as made:
        made.add_switch("ls", WEB)
        made.give("Logical_Switch", "ls", "ports", "Logical_Switch_Port", LOCALNET)
        yield made


def map_network(chassis: Chassis) -> None:
    added = [["external_ids", "insert", mapped({"ovn-bridge-mappings": "lan:phy"})]]
    chassis.store.transact({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": added})


def refused(net: Ovn) -> list[str]:
    """Why the guest is not migrated, planned on what OVN and both chassis say."""
    here, there = (read_chassis(each.root) for each in net.chassis.values())
    known = asyncio.run(Northbound(net.settings).ports([WEB.name]))

    def change(facts: Facts) -> Facts:
        both = f.both(f.on_ovn, f.host("source", chassis=here), f.host("destination", chassis=there))
        return structs.replace(both(facts), northbound=known)

    return [each.code for each in f.found(change).errors]


@pytest.mark.parametrize("there", [True, False], ids=["mapped", "not-mapped"])
def test_from_outside_it_is_reached_where_its_chassis_maps_the_network(net: Ovn, *, there: bool) -> None:
    """After the move, too, without a word of its own. Where nothing is mapped it is cut off, and so is not moved."""
    source, destination = net.chassis.values()
    for chassis in (source, destination) if there else (source,):
        map_network(chassis)
    outside = source.plug(OUTSIDE, bridge="phy")
    with contextlib.closing(Traveller(net, WEB)) as traveller:
        guest = traveller.guest

        def passes() -> list[list[Guest]]:
            """Whom either reaches, from outside first."""
            return [
                reached([datagram(WEB, OUTSIDE)], outside, guest),
                reached([datagram(OUTSIDE, WEB)], guest, outside),
            ]

        until(lambda: passes() == [[guest], [outside]])
        assert refused(net) == ([] if there else ["ovn-no-mapping"])
        traveller.migrate()
        if there:
            until(lambda: reached([datagram(WEB, OUTSIDE)], outside, guest) == [guest])
        assert passes() == ([[guest], [outside]] if there else [[], []])
