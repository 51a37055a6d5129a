"""What guests may be made of: what configures their network, their NICs, their kernels. In the lab."""

import re

import pytest

from lab.operator import Scene, asked, migrate, other, there_and_back, vferry

pytestmark = [pytest.mark.lab, pytest.mark.matrix]

COUNT_NAMES = """while :; do
  names=0; while read -r word _; do [ "$word" != nameserver ] || names=$((names + 1)); done < /etc/resolv.conf
  echo $names; sleep 1
done > /run/names"""
"""Writes each second down how many name servers the guest knows."""
NICS = "nmcli -t -f DEVICE,STATE device | grep -v '^lo:'"


def numbers(release: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", release)[:2]))


def answers_by_ipv6(scene: Scene) -> bool:
    return scene.lab.peer(["busybox", "ping", "-c", "3", "-W", "2", scene.address6]).returncode == 0


@pytest.mark.guest("nm1")
def test_network_manager_is_not_fought_there_and_back_and_at_the_next_boot(scene: Scene) -> None:
    scene.await_agent()
    home = scene.host
    assert scene.tell(NICS) == "eno1:connected\n"  # so called by its index in ACPI
    findings = asked("check", scene.guest, other(home))["findings"]
    assert [each["severity"] for each in findings if each["code"] == "configured-by"] == ["info"]
    for host in (other(home), home):
        with scene.busy(COUNT_NAMES):
            report = migrate(scene, "--no-probe")  # 1,000 a second leave its emulated CPU nothing for anything else
        assert report["network_mode"] == "switch"
        scene.assert_whole(host)
        assert answers_by_ipv6(scene)
        assert set(scene.tell("cat /run/names").split()) == {"2"}
        assert scene.tell(NICS) == "eno1:connected\n"
        assert "vferry" not in scene.tell("ls /run/NetworkManager/conf.d /run/udev/rules.d 2>/dev/null || :")
        assert scene.tell("ip route show default; ip -6 route show default").count("default") == 2
        scene.assert_nothing_left()
    scene.cold_boot(home)
    scene.await_agent()
    assert scene.tell(NICS) == "eno1:connected\n"
    assert scene.tell("grep -c ^nameserver /etc/resolv.conf").strip() == "2"
    assert "vferry" not in scene.tell("ls /run/NetworkManager/conf.d /run/udev/rules.d 2>/dev/null || :")
    assert answers_by_ipv6(scene)


@pytest.mark.guest("nm1")
def test_an_aborted_migration_leaves_network_manager_its_vf(scene: Scene) -> None:
    scene.await_agent()
    here = scene.host
    migration = scene.migrate()
    migration.wait_for("to-standby")
    assert vferry("operation", "abort", migration.operation).returncode == 0
    code, report = migration.end()
    assert code == 6, report
    scene.assert_whole(here)
    assert [line.split(":")[1] for line in scene.tell(NICS).split()] == ["connected"]
    assert scene.tell("grep -c ^nameserver /etc/resolv.conf").strip() == "2"
    scene.cold_boot(here)


@pytest.mark.guest("e1000e1")
def test_a_guest_on_an_emulated_nic_goes_as_one_on_virtio(scene: Scene) -> None:
    home = scene.host
    (nic,) = asked("guest", "show", scene.guest)["nics"]
    assert (nic["model"], nic["vf"]) == ("e1000e", None)
    modes = {each["mode"] for each in asked("check", scene.guest, other(home))["modes"] if each["possible"]}
    assert modes == {"virtio"}
    for report in there_and_back(scene, "--no-probe", back=("--network", "virtio")):
        assert report["network_mode"] == "virtio"
    assert answers_by_ipv6(scene)


@pytest.mark.parametrize(
    "newer",
    [
        pytest.param(False, marks=pytest.mark.guest("oldest1"), id="oldest"),
        pytest.param(True, marks=pytest.mark.guest("newest1"), id="newest"),
    ],
)
def test_a_guest_with_another_kernel_goes_and_comes_back(scene: Scene, newer: bool) -> None:  # noqa: FBT001
    scene.await_agent()
    home = scene.host
    release = scene.tell("uname -r")
    hosts = scene.run(home, "uname -r")
    assert (numbers(release) > numbers(hosts)) is newer, (release, hosts)
    for report in there_and_back(scene):
        assert report["network_mode"] == "switch"
        assert scene.tell("uname -r") == release
    assert answers_by_ipv6(scene)
    assert migrate(scene, "--no-probe", "--network", "detach")["network_mode"] == "detach"
    scene.assert_whole(other(home))
    scene.assert_boots_anew()


@pytest.mark.guest("bare1")
def test_a_pair_that_the_guest_s_kernel_does_not_know_goes_as_two_nics(scene: Scene) -> None:
    scene.await_agent()
    home = scene.host
    checked = asked("check", scene.guest, other(home))
    modes = {each["mode"]: each for each in checked["modes"]}
    assert {mode for mode, each in modes.items() if each["possible"]} == {"switch", "detach"}
    assert "no-net-failover" in {each["code"] for each in modes["failover"]["findings"]}
    refused = vferry("migrate", scene.guest, other(home), "--network", "failover")
    assert refused.returncode == 3
    assert "net_failover driver does not use" in refused.stderr
    assert "--network switch" in refused.stderr
    scene.assert_whole(home)
    reports = there_and_back(scene, "--no-probe", back=("--network", "detach"))
    assert [report["network_mode"] for report in reports] == ["switch", "detach"]
    scene.assert_boots_anew()
