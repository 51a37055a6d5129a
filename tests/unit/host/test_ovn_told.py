"""What a host's Open vSwitch has been told of OVN, read from a real ovsdb-server."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ovs_database import serve, transact

from vferry.host.ovn import read_chassis
from vferry.host.ovsdb import SOCKET
from vferry.model.ovn import Chassis

BRIDGES = {"br-int": "netdev", "relay0": "netdev", "kernel": "system"}
Read = Callable[..., Chassis]


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Read]:
    """What a host with some bridges is to OVN, which has been told so much."""

    def told(**words: str) -> Chassis:
        ids = {"system-id": "c1", "ovn-remote": "x"} | {key.replace("_", "-"): value for key, value in words.items()}
        row = {"external_ids": ["map", [*ids.items()]]}
        transact(tmp_path / SOCKET, {"op": "update", "table": "Open_vSwitch", "where": [], "row": row})
        chassis = read_chassis(tmp_path)
        assert chassis is not None
        return chassis

    with serve(tmp_path):
        for name, datapath in BRIDGES.items():
            row = {"name": name, "datapath_type": datapath}
            insert = {"op": "insert", "table": "Bridge", "row": row, "uuid-name": "b"}
            added = [["bridges", "insert", ["named-uuid", "b"]]]
            transact(
                tmp_path / SOCKET, insert, {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": added}
            )
        yield told


@pytest.mark.parametrize(
    ("mappings", "networks"),
    [
        ("", ()),
        ("lan:relay0", ("lan",)),
        ("lan:relay0,wan:br-int", ("lan", "wan")),
        ("lan:relay0,dmz:gone", ("lan",)),
        ("lan:kernel", ()),
        ("lan", ()),
    ],
)
def test_it_is_on_networks_whose_bridges_its_own_can_be_joined_to(
    read: Read, mappings: str, networks: tuple[str, ...]
) -> None:
    assert read(ovn_bridge_mappings=mappings) == Chassis(name="c1", bridge="br-int", userspace=True, networks=networks)


@pytest.mark.parametrize(("told", "types"), [("geneve", ("geneve",)), ("geneve,vxlan", ("geneve", "vxlan")), ("", ())])
def test_its_tunnels_may_go_by_what_it_says(read: Read, told: str, types: tuple[str, ...]) -> None:
    assert read(ovn_encap_type=told).encap_types == types


def test_what_is_told_the_chassis_counts_before_what_is_told_the_host(read: Read) -> None:
    chassis = read(
        ovn_bridge="br-int",
        ovn_bridge_c1="relay0",
        ovn_bridge_mappings="lan:relay0",
        ovn_bridge_mappings_c1="wan:relay0",
        ovn_encap_type="geneve",
        ovn_encap_type_c1="vxlan",
        ovn_encap_type_c2="stt",
    )
    assert chassis == Chassis(name="c1", bridge="relay0", userspace=True, networks=("wan",), encap_types=("vxlan",))


def test_told_nothing_it_says_nothing(read: Read) -> None:
    chassis = read()
    assert (chassis.networks, chassis.encap_types) == ((), ())
