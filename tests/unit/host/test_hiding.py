"""A VF is kept from a guest's MAC from when libvirt has made its macvtap until that is up, and never any longer."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self, cast

import pytest
from fake_netlink import VF_INTERFACE, FakeLinks, FakeNic
from test_sriov import make_host

from vferry.host import hiding
from vferry.host.api import Done
from vferry.host.forwarding import parked
from vferry.host.hiding import Changes, Hiding
from vferry.host.sriov_netlink import Links
from vferry.model.host import NO_MAC
from vferry.model.problem import Problem

MAC = "52:54:00:aa:00:0b"
OWN = "52:54:00:00:01:02"
OTHER = "52:54:00:aa:00:0c"
DOWN, UP = "0x1002", "0x1003"


class Told:
    """`Changes` that a test makes."""

    def __init__(self) -> None:
        self.looked, self.more = threading.Semaphore(0), threading.Semaphore(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.looked.release()

    def wait(self) -> None:
        self.looked.release()
        self.more.acquire()


class Host:
    """A host whose VF 1 has an interface, with an agent that looks when it is told."""

    def __init__(self, root: Path) -> None:
        make_host(root)
        self.net = root / "sys/class/net"
        (self.net / "pf0/device/virtfn1/net" / VF_INTERFACE).mkdir(parents=True)
        (self.net / VF_INTERFACE).mkdir()
        (self.net / VF_INTERFACE / "device").symlink_to((self.net / "pf0/device/virtfn1").resolve())
        (self.net / VF_INTERFACE / "device/physfn/net/pf0").mkdir(parents=True)
        self.nic = FakeNic()
        self.told: list[Told] = []
        self.root = root
        self.hiding = self.new_agent()

    def new_agent(self) -> Hiding:
        links = lambda: cast("Links", FakeLinks(self.nic))  # noqa: E731
        return Hiding(self.root, links, self._changes)

    def _changes(self) -> Changes:
        self.told.append(Told())
        return cast("Changes", self.told[-1])

    def hide(self) -> Done:
        """As it is asked for, and the first look."""
        known = len(self.told)
        done = self.hiding.hide("pf0", 1, MAC.upper())
        for told in self.told[known:]:
            assert told.looked.acquire(timeout=5)
        return done

    def libvirt(self, flags: str | None, address: str | None = None) -> None:
        """What libvirt does to the interface and its macvtap, which comes, changes, or goes, and who hears of it."""
        if address is not None:
            self.nic.set_address(address)
        self.macvtap(flags)
        self.look()

    def macvtap(self, flags: str | None) -> None:
        above = self.net / VF_INTERFACE / "upper_macvtap0"
        shutil.rmtree(above, ignore_errors=True)
        if flags is not None:
            above.mkdir()
            (above / "flags").write_text(f"{flags}\n")

    def look(self) -> None:
        for told in self.told:
            told.more.release()
            assert told.looked.acquire(timeout=5)

    @property
    def macs(self) -> tuple[str, str]:
        """The interface's, and that of the filter."""
        return self.nic.address, self.nic.mac(1)

    def hides(self) -> bool:
        return any(thread.name == f"hide-{MAC}" for thread in threading.enumerate())

    def ended(self) -> bool:
        """Whether nobody waits any more, once all have looked again."""
        for told in self.told:
            told.more.release()
        for thread in threading.enumerate():
            if thread.name == f"hide-{MAC}":
                thread.join(5)
        return not self.hides()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


HIDDEN, SHOWN = (parked(MAC), parked(MAC)), (MAC, MAC)


def test_a_vf_has_the_mac_only_while_the_macvtap_is_up(host: Host) -> None:
    assert host.hide() == Done()
    assert host.macs == (OWN, NO_MAC)
    host.libvirt(None, MAC)
    assert host.macs == SHOWN, "libvirt is at work still"
    host.libvirt(DOWN)
    assert host.macs == HIDDEN
    host.look()
    assert host.nic.packets.count(["address"]) == 1
    host.libvirt(UP)
    assert host.macs == SHOWN
    assert [packet for packet in host.nic.packets if packet] == [["address"], ["address"]], "not by the PF"
    assert host.ended()


def test_asking_again_changes_nothing(host: Host) -> None:
    host.hide()
    assert host.hide() == Done(changed=False)
    assert len(host.told) == 1
    host.hiding.forget("pf0", 1)
    assert host.ended()


def test_a_vf_that_is_left_alone_gets_neither_mac(host: Host) -> None:
    """The way back: libvirt has put the VF's own MAC back, or will."""
    host.hide()
    host.libvirt(DOWN, MAC)
    host.hiding.forget("pf0", 1)
    host.libvirt(None, OWN)
    assert host.macs == (OWN, OWN)
    host.macvtap(UP)
    assert host.ended()
    assert host.macs == (OWN, OWN)


def test_what_libvirt_puts_back_stays(host: Host) -> None:
    """QEMU has ended before the guest came."""
    host.hide()
    host.libvirt(DOWN, MAC)
    host.libvirt(None, OWN)
    assert host.macs == (OWN, OWN)
    assert host.hides()
    host.hiding.forget("pf0", 1)
    assert host.ended()


@pytest.mark.parametrize("flags", [DOWN, UP])
def test_an_interface_that_keeps_a_mac_of_its_own_is_left_alone(host: Host, flags: str) -> None:
    """In mode bridge, private or vepa."""
    host.hide()
    host.libvirt(flags)
    assert host.hiding.show("pf0", 1, MAC) == Done(changed=False)
    assert host.macs == (OWN, NO_MAC)
    assert host.ended()


def test_an_agent_that_has_forgotten_gives_the_mac_when_it_is_asked(host: Host) -> None:
    host.hide()
    host.libvirt(DOWN, MAC)
    host.hiding.forget("pf0", 1)
    host.hiding = host.new_agent()
    host.macvtap(UP)
    assert host.ended()
    assert host.macs == HIDDEN
    assert host.hiding.show("pf0", 1, MAC.upper()) == Done()
    assert host.macs == SHOWN
    assert host.hiding.show("pf0", 1, MAC) == Done(changed=False)


@pytest.mark.parametrize("came", [False, True], ids=["on its way", "here since"])
def test_an_agent_that_is_started_anew_goes_on(host: Host, *, came: bool) -> None:
    host.hide()
    host.libvirt(DOWN, MAC)
    host.hiding.forget("pf0", 1)
    assert host.ended()
    host.told.clear()
    host.hiding = host.new_agent()
    if came:
        host.macvtap(UP)
    host.hiding.take_up([("pf0", OTHER), ("none0", OTHER), (VF_INTERFACE, OTHER), (VF_INTERFACE, MAC.upper())])
    assert len(host.told) == 1
    assert host.told[0].looked.acquire(timeout=5)
    assert host.macs == (SHOWN if came else HIDDEN)
    host.macvtap(UP)
    assert host.ended()
    assert host.macs == SHOWN


def test_an_agent_that_is_started_anew_leaves_other_guests_alone(host: Host) -> None:
    host.libvirt(UP, MAC)
    host.hiding.take_up([(VF_INTERFACE, MAC)])
    assert (host.told, host.nic.packets) == ([], [])


def test_a_mac_is_given_also_where_the_macvtap_is_down(host: Host) -> None:
    """The guest runs, by the controller's word."""
    host.hide()
    host.libvirt(DOWN, MAC)
    assert host.hiding.show("pf0", 1, MAC) == Done()
    assert host.ended()
    assert host.macs == SHOWN


def test_a_vf_whose_mac_the_pf_has_set_is_hidden_and_shown_by_that(host: Host) -> None:
    """libvirt has had to do it so, too."""
    host.hide()
    host.nic.set_address(MAC)
    host.nic.overridden = "refused"
    host.libvirt(DOWN)
    assert host.macs == (MAC, parked(MAC))
    host.look()
    assert host.nic.packets.count(["refused address"]) == 1
    assert host.nic.packets.count(["IFLA_VF_MAC"]) == 1
    host.hiding.forget("pf0", 1)
    assert host.ended()
    host.hiding = host.new_agent()
    host.hiding.take_up([(VF_INTERFACE, MAC)])
    host.macvtap(UP)
    assert host.ended()
    assert host.macs == SHOWN


def test_a_vf_that_may_not_change_its_mac_keeps_it(host: Host) -> None:
    host.hide()
    host.nic.set_address(MAC)
    host.nic.overridden, host.nic.lacks = "refused", {"IFLA_VF_MAC"}
    host.macvtap(DOWN)
    assert host.ended()
    assert host.macs == SHOWN
    assert host.nic.packets.count(["refused address"]) == 1


@pytest.mark.parametrize("overridden", ["refused", "unheard"])
def test_what_the_vf_cannot_take_back_the_pf_gives(host: Host, overridden: str) -> None:
    host.hide()
    host.libvirt(DOWN, MAC)
    host.nic.overridden = overridden
    host.libvirt(UP)
    assert host.nic.mac(1) == MAC
    assert host.ended()


def test_what_neither_gives_is_tried_again(host: Host) -> None:
    host.hide()
    host.libvirt(DOWN, MAC)
    host.nic.overridden, host.nic.lacks = "refused", {"IFLA_VF_MAC"}
    host.libvirt(UP)
    assert host.macs == HIDDEN
    with pytest.raises(Problem) as caught:
        host.hiding.show("pf0", 1, MAC)
    assert caught.value.code == "vf-setting-refused"
    assert host.hides()
    host.nic.overridden = ""
    host.look()
    assert host.macs == SHOWN
    assert host.ended()


def test_what_goes_wrong_for_a_moment_ends_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.hide()
    host.libvirt(DOWN, MAC)

    def silent(*_: object) -> None:
        raise TimeoutError("timed out")

    for flags in (DOWN, UP):
        with monkeypatch.context() as patch:
            patch.setattr(FakeLinks, "get", silent)
            host.libvirt(flags)
    assert host.macs == HIDDEN
    host.look()
    assert host.macs == SHOWN
    assert host.ended()


def test_a_vf_without_an_interface_is_left_alone(host: Host) -> None:
    assert host.hiding.show("pf0", 0, MAC) == Done(changed=False)
    assert host.nic.packets == []


# A pair of interfaces without VFs stands for the PF and the VF's own, and files for the macvtap: the kernel's messages
# are its own, and what a PF says of a VF is not asked.
PROGRAM = f"""
import subprocess, sys, time
from pathlib import Path
from vferry.host import hiding as watched
from vferry.host.api import Done
from vferry.host.hiding import Hiding
from vferry.model.host import VfSettings
watched.LOOK_S = 60.0
watched.read_settings = lambda *_: VfSettings(mac=address())
watched.apply_settings = lambda *_: Done(changed=False)
run = lambda *words: subprocess.run(words, check=True, capture_output=True, text=True).stdout
root = Path(sys.argv[1])
(root / "sys/class/net/pf0/device/virtfn0/net/vf0").mkdir(parents=True)
upper = root / "sys/class/net/vf0/upper_macvtap0"
upper.mkdir(parents=True)
def address(): return run("ip", "link", "show", "dev", "vf0").split("link/ether ")[1][:17]
def awaited(mac):
    until = time.monotonic() + 30
    while address() != mac:
        assert time.monotonic() < until, (address(), mac)
        time.sleep(0.01)
hiding = Hiding(root)
hiding.hide("pf0", 0, "{MAC}")
run("ip", "link", "set", "dev", "vf0", "address", "{MAC}")
(upper / "flags").write_text("0x1002")
run("ip", "link", "set", "dev", "pf0", "mtu", "1400")
awaited("{parked(MAC)}")
(upper / "flags").write_text("0x1003")
run("ip", "link", "set", "dev", "pf0", "up")
awaited("{MAC}")
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare"))),
    reason="making a network namespace needs root, ip and unshare",
)
def test_the_kernel_tells_of_interfaces_and_changes_their_macs(tmp_path: Path) -> None:
    network = 'ip link add name vf0 type veth peer name pf0 && exec "$@"'
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", network, "sh", sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(hiding.__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
