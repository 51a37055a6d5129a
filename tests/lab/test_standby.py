"""Migrations in a lab whose hosts reach the network otherwise than by a Linux bridge on the PF."""

import re

import pytest

from lab.operator import HOSTS, Scene, asked, migrate, other, there_and_back
from vferry.lab import guests
from vferry.lab.lab import Lab
from vferry.lab.topology import NETWORKS, Standby, host_named, preferred
from vferry.model.host import AttachmentKind

pytestmark = pytest.mark.standby


@pytest.fixture(autouse=True)
def standby(lab: Lab) -> Standby:
    found = lab.standby()
    assert found.variant, "vferry lab down; vferry lab up --standby ovs"
    return found


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param("switch", marks=pytest.mark.guest("guest1"), id="guest1"),
        pytest.param("switch", marks=pytest.mark.guest("bond1"), id="bond1"),
        pytest.param("failover", marks=pytest.mark.guest("failover1"), id="failover1"),
        pytest.param("virtio", marks=pytest.mark.guest("guest2"), id="guest2"),
    ],
)
def test_a_guest_goes_and_comes_back(scene: Scene, standby: Standby, mode: str) -> None:
    scene.await_agent()
    for report in there_and_back(scene):
        assert report["network_mode"] == ("macvtap" if mode == "virtio" and standby.bridge is None else mode)
        assert report["network"] is not None, report["network_note"]
        assert report["network"]["lost"] < report["network"]["sent"] / 10, report["network"]
        if mode in {"switch", "failover"}:
            # host2 of a lab with a bond takes the VFs of its second PF first.
            vf = next(nic["vf"] for nic in asked("guest", "show", scene.guest)["nics"] if nic["vf"])
            assert vf["pf"] == standby.pfs[0 if report["destination"] == HOSTS[0] else -1]
    scene.assert_boots_anew()


def test_the_hosts_say_what_they_have(standby: Standby) -> None:
    for host in HOSTS:
        shown = asked("host", "show", host)
        kinds = {bridge["name"]: bridge["kind"] for bridge in shown["bridges"] if standby.uplink in bridge["ports"]}
        assert kinds == ({standby.bridge: standby.bridge_kind} if standby.bridge else {})
        assert [bond["name"] for bond in shown["bonds"]] == (["bond0"] if len(standby.pfs) > 1 else [])


@pytest.mark.guest("guest2")
def test_open_vswitch_holds_the_guest_at_its_port(scene: Scene, standby: Standby) -> None:
    if standby.bridge_kind is not AttachmentKind.OPENVSWITCH:
        pytest.skip("for Open vSwitch")
    host = other(scene.host)
    migrate(scene, "--no-probe")
    entries = scene.run(host, "ovs-appctl fdb/show br0").splitlines()
    (entry,) = [line for line in entries if guests.named("guest2").mac in line]
    assert entry.split()[-1] == "static", entry
    scene.assert_whole(host)


def test_a_bond_with_lacp_has_all_its_pfs_in_one_aggregator_with_the_switch(lab: Lab, standby: Standby) -> None:
    if not standby.lacp:
        pytest.skip("for a bond with LACP")
    for host in HOSTS:
        bond = lab.run(host, ["cat", f"/proc/net/bonding/{standby.uplink}"]).stdout
        assert "Bonding Mode: IEEE 802.3ad" in bond
        assert f"Partner Mac Address: {NETWORKS[0].mac}" in bond
        aggregators = re.findall(r"Aggregator ID: (\d+)", bond)  # the bond's active one, then each slave's
        assert len(aggregators) == 1 + len(standby.pfs)
        assert len(set(aggregators)) == 1, bond


@pytest.mark.guest("guest2")
def test_what_a_bond_passes_it_passes_by_whichever_slave_is_active(scene: Scene, standby: Standby) -> None:
    if len(standby.pfs) < 2 or standby.lacp:
        pytest.skip("for a bond of which one slave is active")
    host = other(scene.host)
    migrate(scene, "--no-probe")
    mac = guests.named("guest2").mac
    for active in reversed(standby.pfs):
        scene.run(host, f"ip link set {standby.uplink} type bond active_slave {active}")
        assert mac in scene.run(host, f"bridge fdb show dev {active} | grep self")
        scene.assert_whole(host)


@pytest.mark.guest("guest2")
def test_what_a_bond_with_lacp_passes_it_passes_by_whichever_slave_the_switch_picks(
    scene: Scene, standby: Standby
) -> None:
    if not standby.lacp:
        pytest.skip("for a bond with LACP")
    host = other(scene.host)
    migrate(scene, "--no-probe")
    mac, its = guests.named("guest2").mac, host_named(host)
    assert its is not None
    for picked in reversed(preferred(its, standby)):  # at last the one that the lab has
        scene.lab.prefer(host, picked)
        assert mac in scene.run(host, f"bridge fdb show dev {picked} | grep self")
        scene.assert_whole(host)
