"""Migrations between host1 with Debian 12 and host2 with Debian 13: QEMU 7.2 and 11.1, libvirt 9.0 and 11.3."""

import pytest

from lab.operator import Scene, migrate, other, there_and_back, vferry
from vferry.lab.lab import Lab
from vferry.lab.release import DEBIAN12, DEBIAN13

pytestmark = pytest.mark.debian12
SWITCH = ("--network", "switch")


@pytest.fixture(autouse=True)
def releases(lab: Lab) -> None:
    assert lab.releases() == {"host1": DEBIAN12, "host2": DEBIAN13}, "vferry lab down; vferry lab up --debian12 host1"


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        pytest.param("switch", (), marks=pytest.mark.guest("guest1")),
        pytest.param("detach", ("--network", "detach"), marks=pytest.mark.guest("guest1")),
        pytest.param("virtio", (), marks=pytest.mark.guest("guest2")),
        pytest.param("switch", ("--codec", "zstd"), marks=pytest.mark.guest("bond1")),
        pytest.param("failover", (), marks=pytest.mark.guest("failover1")),
        pytest.param("detach", ("--network", "detach", "--temporary-bond"), marks=pytest.mark.guest("guest1")),
        pytest.param("detach", ("--network", "detach"), marks=pytest.mark.guest("bond1")),
        pytest.param("macvtap", (), marks=pytest.mark.guest("macvtap1")),
        pytest.param("virtio", (), marks=pytest.mark.guest("e1000e1")),
        pytest.param("switch", (), marks=pytest.mark.guest("two1")),
    ],
)
def test_a_guest_goes_to_the_other_release_and_comes_back(scene: Scene, mode: str, options: tuple[str, ...]) -> None:
    scene.await_agent()
    for report in there_and_back(scene, "--no-probe", *options):
        assert report["network_mode"] == mode
    scene.assert_boots_anew()


@pytest.mark.guest("guest2")
def test_a_newer_machine_type_is_refused_by_the_older_host(scene: Scene) -> None:
    if scene.host == "host1":
        migrate(scene, "--no-probe")
    with scene.defined_as(lambda xml: xml.replace(DEBIAN12.machine, DEBIAN13.machine)):
        done = vferry("migrate", scene.guest, "host1")
        assert done.returncode == 3
        assert f"machine type {DEBIAN13.machine} (kvm) cannot run here" in done.stderr
        scene.assert_whole("host2")


@pytest.mark.guest("vlan1")
def test_a_vlan_of_the_standby_nic_needs_a_newer_libvirt(scene: Scene) -> None:
    done = vferry("migrate", scene.guest, other(scene.host))
    assert done.returncode == 3
    assert "libvirt before 11.0" in done.stderr


def test_a_codec_that_the_older_host_lacks_is_refused(scene: Scene) -> None:
    done = vferry("migrate", scene.guest, other(scene.host), "--codec", "qatzip")
    assert done.returncode == 3
    assert "qatzip" in done.stderr
    assert "host1" in done.stderr
