"""The lab itself: VFs, libvirt and guests are what they are on real hosts."""

import json

import pytest

from lab.operator import asked
from vferry.lab import guests
from vferry.lab.lab import Lab
from vferry.lab.topology import HOSTS, guest_named

pytestmark = pytest.mark.lab


def host_of(lab: Lab, name: str) -> str:
    return guests.where(lab, name).host


@pytest.mark.parametrize("name", ["guest1", "guest2"])
def test_the_peer_reaches_a_guest(lab: Lab, name: str) -> None:
    lab.guest(name)
    guest = guest_named(name)
    assert guest is not None
    assert lab.peer(["busybox", "ping", "-c", "3", "-W", "2", guest.address]).returncode == 0
    assert lab.peer(["busybox", "ping", "-c", "3", "-W", "2", guest.address6]).returncode == 0


def test_libvirt_set_the_vf_s_mac_on_the_pf(lab: Lab) -> None:
    lab.guest("guest1")
    shown = lab.run(host_of(lab, "guest1"), ["ip", "link", "show", "enp1s0"]).stdout
    assert "link/ether 52:54:00:aa:00:0b" in shown


def test_the_hosts_vhost_net_says_what_it_offers(lab: Lab) -> None:
    for host in HOSTS:
        assert asked("host", "show", host.name)["vhost_features"] >> 32 & 1, "VIRTIO_F_VERSION_1"


def test_igb_says_that_it_cannot_set_a_vf_s_link_state_and_nothing_changes(lab: Lab) -> None:
    """Asked for a VF that it can never have (docs/decisions/0019): it has the functions for all the rest."""
    script = (
        'import sys; sys.path.insert(0, "/opt/vferry/site"); from pathlib import Path\n'
        "from vferry.host.sriov_netlink import Links; from vferry.host.sriov_settings import ask_driver\n"
        'with Links() as links: print(*ask_driver(links, Path("/"), "enp1s0").lacks)'
    )
    for host in HOSTS:
        before = lab.run(host.name, ["ip", "link", "show", "enp1s0"]).stdout
        assert lab.run(host.name, ["python3", "-c", script]).stdout.split() == ["link_state"]
        assert lab.run(host.name, ["ip", "link", "show", "enp1s0"]).stdout == before


def test_a_guest_runs_unprivileged_and_confined_on_kvm(lab: Lab) -> None:
    lab.guest("guest1")
    script = (
        'pid=$(pgrep -f "^/usr/bin/qemu-system-x86_64 -name guest=guest1,")\n'
        "ps -o user= -p $pid; cat /proc/$pid/attr/current\n"
        "tr '\\0' ' ' < /proc/$pid/cmdline | grep -o -- '-accel [a-z]*'"
    )
    user, profile, accelerator = lab.run(host_of(lab, "guest1"), ["sh", "-c", script]).stdout.splitlines()
    assert user.startswith("libvirt+") or user == "libvirt-qemu"
    assert profile.startswith("libvirt-")
    assert profile.endswith("(enforce)")
    assert accelerator == "-accel kvm"


def test_the_guest_agent_answers_and_may_execute(lab: Lab) -> None:
    lab.guest("guest1")
    host = host_of(lab, "guest1")
    for command in ({"execute": "guest-ping"}, {"execute": "guest-exec", "arguments": {"path": "/usr/bin/ip"}}):
        done = lab.run(host, ["virsh", "qemu-agent-command", "guest1", json.dumps(command)])
        assert done.returncode == 0, done.stderr
        assert "return" in json.loads(done.stdout)


def test_a_command_s_words_input_and_status_pass_unchanged(lab: Lab) -> None:
    done = lab.run("host2", ["sh", "-c", 'cat; printf "%s|" "$@"; echo oops >&2; exit 7', "x", "a b", "$c"], "in ")
    assert (done.stdout, done.stderr, done.returncode) == ("in a b|$c|", "oops\n", 7)


def test_a_second_up_changes_nothing(lab: Lab) -> None:
    running = [row["name"] for row in lab.status()["guests"]]
    assert lab.up(running) is False


def test_a_cut_link_loses_frames_and_comes_back(lab: Lab) -> None:
    lab.guest("guest2")
    host, ping = host_of(lab, "guest2"), ["busybox", "ping", "-c", "1", "-W", "2", "10.9.0.12"]
    lab.cut_link(host, "data")
    try:
        assert lab.peer(ping).returncode != 0
    finally:
        lab.join_link(host, "data")
    assert any(lab.peer(ping).returncode == 0 for _ in range(5))
