"""What a guest's network may be like, and the modes that take its VF away: in the lab."""

import contextlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lab.operator import HOSTS, PF, Scene, migrate, other, there_and_back
from vferry.lab import guests, guestxml
from vferry.lab.topology import HOSTS as LAB_HOSTS
from vferry.lab.topology import NETWORKS

pytestmark = [pytest.mark.lab, pytest.mark.matrix]

JUMBO, USUAL = 9000, 1500


def lost(report: dict[str, Any], *phases: str) -> int:
    network = report["network"]
    assert network is not None, report["network_note"]
    return sum(network["phases"][phase]["lost"] for phase in phases if phase in network["phases"])


def test_a_lone_vf_is_detached_and_its_addresses_given_back(scene: Scene) -> None:
    host = other(scene.host)
    report = migrate(scene, "--network", "detach")
    assert report["network_mode"] == "detach"
    assert report["dark_s"] > 0
    assert lost(report, "to-standby", "copy", "switchover") > 100
    scene.assert_whole(host)


@pytest.mark.guest("bond1")
def test_a_vf_is_detached_from_the_guest_s_own_bond(scene: Scene) -> None:
    for _ in HOSTS:
        host = other(scene.host)
        report = migrate(scene, "--network", "detach")
        assert (report["network_mode"], report["dark_s"]) == ("detach", None)
        scene.assert_whole(host)
        scene.assert_nothing_left()


def test_a_bond_is_made_for_the_migration_and_taken_away(scene: Scene) -> None:
    for _ in HOSTS:
        host = other(scene.host)
        report = migrate(scene, "--network", "detach", "--temporary-bond")
        assert (report["network_mode"], report["dark_s"]) == ("detach", None)
        assert lost(report, "to-standby") == 0
        scene.assert_whole(host)
        scene.tell("! ls /sys/class/net/*/bonding")
        scene.assert_nothing_left()


def test_a_guest_that_has_ipv6_alone(scene: Scene) -> None:
    scene.tell("ip -4 address flush scope global")
    try:
        report = migrate(scene, "--probe", scene.address6)
        assert lost(report, "to-standby", "to-vf") == 0
        assert scene.lab.peer(["busybox", "ping", "-6", "-q", "-c", "1", "-W", "2", scene.address6]).returncode == 0
    finally:
        scene.cold_boot(scene.host)


POOL = f"<network><name>vfs</name><forward mode='hostdev' managed='yes'><pf dev='{PF}'/></forward></network>"
OWN_VF = re.compile(r"<interface type='hostdev' managed='yes'>(.*?)<source>.*?</source>", re.DOTALL)


PROFILE = "/etc/apparmor.d/local/abstractions/libvirt-qemu"


@contextlib.contextmanager
def pools(scene: Scene) -> Iterator[None]:
    """A libvirt network on each host, of all VFs of its PF; libvirt's profile of a guest does not know of those VFs."""
    try:
        for host in HOSTS:
            scene.run(host, f"cp {PROFILE} /run/profile; echo '/dev/vfio/* rw,' >> {PROFILE}")
            start = "cat > /run/pool.xml; virsh net-define /run/pool.xml && virsh net-start vfs; rm /run/pool.xml"
            assert scene.lab.run(host, ["sh", "-c", start], POOL).returncode == 0
        yield
    finally:
        for host in HOSTS:
            scene.run(host, f"virsh net-destroy vfs; virsh net-undefine vfs; mv /run/profile {PROFILE}")


def from_pool(xml: str) -> str:
    edited, times = OWN_VF.subn(r"<interface type='network'>\1<source network='vfs'/>", xml)
    assert times == 1
    return edited


def test_a_vf_from_a_pool_of_libvirt_s(scene: Scene) -> None:
    home = scene.host
    with pools(scene), scene.defined_as(from_pool):
        for host in (other(home), home):
            report = migrate(scene)
            assert report["network_mode"] == "switch"
            assert lost(report, "to-standby", "to-vf") == 0
            scene.assert_whole(host)
        scene.assert_boots_anew()


@pytest.mark.guest("two1")
def test_each_nic_goes_by_a_mode_of_its_own(scene: Scene) -> None:
    mac = guests.named(scene.guest).links[1].mac
    own = re.compile(rf"<interface type='hostdev' managed='yes'>\s*<mac address='{mac}'/>.*?</interface>", re.DOTALL)
    for host in LAB_HOSTS:
        scene.run(host.name, f"vferry-lab-vf-interface {host.own_vf}")
    with scene.defined_as(lambda xml: own.sub(guestxml.macvtap(1, LAB_HOSTS[0].own_vf, mac), xml)):
        for report in there_and_back(scene):
            assert report["network_mode"] == "switch+macvtap"


@contextlib.contextmanager
def large_frames(scene: Scene) -> Iterator[None]:
    """An MTU of 9000 all the way from the peer into the guest."""
    data = NETWORKS[0]
    taps = [data.tap(host.name) for host in LAB_HOSTS]

    def everywhere(mtu: int) -> None:
        for link in (*taps, data.bridge):
            assert scene.lab.peer(["ip", "link", "set", "dev", link, "mtu", str(mtu)]).returncode == 0
        for host in HOSTS:
            scene.run(host, f"ip link set dev {PF} mtu {mtu}")

    try:
        everywhere(JUMBO)
        scene.tell(f"for nic in /sys/class/net/e*; do ip link set dev ${{nic##*/}} mtu {JUMBO}; done")
        yield
    finally:
        everywhere(USUAL)
        scene.cold_boot(scene.host)


def test_large_frames_pass_all_the_time(scene: Scene) -> None:
    with large_frames(scene):
        large = ["busybox", "ping", "-q", "-s", "8000", "-w", "60", scene.address]
        with ThreadPoolExecutor(1) as pool:
            pinged = pool.submit(scene.lab.peer, large)
            migrate(scene, "--no-probe")
        said = re.search(r"(\d+)% packet loss", pinged.result().stdout)
        assert said is not None
        assert int(said[1]) <= 10
