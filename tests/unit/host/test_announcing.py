"""Announcing a NIC: what is sent when, and on a real bridge what it and the network beyond learn."""

import errno
import os
import shutil
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from vferry.host import announcing
from vferry.host.announcement import of_address, rarp
from vferry.host.announcing import ADDRESSED_S, TIMES_S, announce, frames, open_wire, teach_bridge
from vferry.host.api import Announce, Done
from vferry.host.sriov_netlink import Links
from vferry.model.problem import Problem

MAC = "52:54:00:aa:00:0b"
ADDRESSES = ("10.9.0.11", "fd00:9::11")
WANTED = Announce(guest="guest1", mac=MAC, interface="pf0", addresses=ADDRESSES)


class FakeWire:
    """Keeps what is sent; `fails_at` is the number of the frame that cannot be."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.sent: list[bytes] = []
        self.closed = threading.Event()
        self.fails_at = fails_at

    def send(self, frame: bytes) -> int:
        if len(self.sent) == self.fails_at:
            raise OSError(errno.ENETDOWN, "down")
        self.sent.append(frame)
        return len(frame)

    def close(self) -> None:
        self.closed.set()


class FakeLinks:
    def __init__(self, *, refuses: bool = False) -> None:
        self.learnt: list[tuple[int, str]] = []
        self.refuses = refuses

    def index(self, name: str) -> int:
        return {"vnet3": 7}[name]

    def change(self, message: Any) -> None:
        if self.refuses:
            raise OSError(errno.EOPNOTSUPP, "refused")
        self.learnt.append((message["ifindex"], dict(message["attrs"])["NDA_LLADDR"]))


def said(wire: FakeWire, wanted: Announce = WANTED) -> tuple[Done, list[float]]:
    """What the operation answers, and for how long it sleeps, when it is over."""
    slept: list[float] = []
    done = announce(wanted, lambda: wire, slept.append)
    assert wire.closed.wait(5)
    return done, slept


def test_all_is_said_several_times_and_then_no_more() -> None:
    wire = FakeWire()
    done, slept = said(wire)
    assert done.detail == "7 times in 5 s from pf0"
    assert sum(slept) == pytest.approx(TIMES_S[-1])
    assert wire.sent == [frame for at_s in TIMES_S for frame in frames(WANTED, at_s)]
    assert wire.sent.count(rarp(MAC)) == len(TIMES_S)
    assert [wire.sent.count(of_address(MAC, each)) for each in ADDRESSES] == [len(ADDRESSED_S)] * 2


def test_the_rfcs_bounds_are_kept() -> None:
    """RFC 4861: at most 3 unsolicited advertisements, a second apart; RFC 5227: announcements 2 s apart."""
    assert len(ADDRESSED_S) <= 3
    assert min(after - before for before, after in pairwise(ADDRESSED_S)) >= 2
    assert set(ADDRESSED_S) <= set(TIMES_S)


def test_a_port_of_a_bridge_is_learnt(tmp_path: Path) -> None:
    (tmp_path / "sys/class/net/vnet3/brport").mkdir(parents=True)
    links = FakeLinks()
    done = teach_bridge(cast("Links", links), tmp_path, "vnet3", MAC)
    assert links.learnt == [(7, MAC)]
    assert done.detail == f"{MAC} is behind vnet3"


@pytest.mark.parametrize("port", ["vnet3", None])
def test_what_is_no_port_of_a_linux_bridge_is_left_alone(tmp_path: Path, port: str | None) -> None:
    links = FakeLinks()
    assert teach_bridge(cast("Links", links), tmp_path, port, MAC) == Done(changed=False)
    assert links.learnt == []


def test_a_bridge_that_refuses_is_said(tmp_path: Path) -> None:
    (tmp_path / "sys/class/net/vnet3/brport").mkdir(parents=True)
    links = FakeLinks(refuses=True)
    with pytest.raises(Problem, match="does not take") as caught:
        teach_bridge(cast("Links", links), tmp_path, "vnet3", MAC)
    assert caught.value.code == "bridge-refused"


def test_an_interface_that_is_down_is_said() -> None:
    with pytest.raises(Problem, match=rf"{MAC} was not announced from pf0: Network is down") as caught:
        said(FakeWire(fails_at=0))
    assert caught.value.code == "announce-failed"


def test_an_interface_that_goes_away_ends_it() -> None:
    wire = FakeWire(fails_at=4)
    said(wire)
    assert len(wire.sent) == 4


def test_an_interface_that_is_not_there_is_said() -> None:
    with pytest.raises(Problem, match="No such device"):
        announce(Announce(guest="g", mac=MAC, interface="none0"), lambda: open_wire("none0"))


def test_what_is_announced_anew_is_not_said_of_the_old_place_any_more() -> None:
    first, second = FakeWire(), FakeWire()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            announce(Announce(guest="guest1", mac=MAC, interface="bond0"), lambda: second, lambda _: None)

    announce(WANTED, lambda: first, sleep)
    assert first.closed.wait(5)
    assert second.closed.wait(5)
    assert first.sent == [*frames(WANTED, TIMES_S[0]), *frames(WANTED, TIMES_S[1])]
    assert second.sent.count(rarp(MAC)) == len(TIMES_S)


NETWORK = """set -e
ip link set lo up
ip link add name br0 type bridge
ip link add name up0 type veth peer name switch0
ip link add name tap0 type veth peer name guest0
for port in up0 tap0; do ip link set $port master br0 up; done
for end in br0 switch0 guest0; do ip link set $end up; done
exec "$@"
"""

PROGRAM = f"""
import socket, subprocess, sys
from pathlib import Path
from vferry.host.announcing import announce, open_wire, teach_bridge
from vferry.host.api import Announce
from vferry.host.sriov_netlink import Links
seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
seen.bind(("switch0", 0))
seen.settimeout(5)
Path(sys.argv[1], "sys/class/net/tap0/brport").mkdir(parents=True)
wanted = Announce(guest="guest1", mac="{MAC}", interface="up0", addresses={ADDRESSES!r})
subprocess.run(["bridge", "fdb", "replace", wanted.mac, "dev", "up0", "master", "dynamic"], check=True)
with Links() as links:
    assert teach_bridge(links, Path(sys.argv[1]), "tap0", wanted.mac).changed
    assert teach_bridge(links, Path(sys.argv[1]), "tap0", wanted.mac).changed
for _ in range(2):
    announce(wanted, lambda: open_wire("up0"), sleep=lambda _seconds: None)
found = []
while len(found) < 26:
    frame = seen.recv(2000)
    if frame[6:12].hex(":") == wanted.mac:
        found.append(frame[12:14].hex())
print(sorted(set(found)))
print(subprocess.run(["bridge", "fdb", "show", "br", "br0"], capture_output=True, text=True, check=True).stdout)
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("ip", "bridge", "unshare"))),
    reason="making a network namespace needs root, ip, bridge and unshare",
)
def test_a_real_bridge_and_what_is_beyond_its_uplink_learn_it(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", NETWORK, "sh", sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(announcing.__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    kinds, _, entries = done.stdout.partition("\n")
    assert kinds == "['0806', '8035', '86dd']"
    (entry,) = [line for line in entries.splitlines() if line.startswith(MAC)]
    assert entry.split()[1:5] == ["dev", "tap0", "master", "br0"]
    assert "permanent" not in entry
