"""A guest's MAC comes to a PF's filter or a VF when the guest resumes here, not before it, and not without it."""

import threading
from typing import cast

import pytest
from fake_libvirt import FakeDomain, FakeLibvirt
from fake_netlink import FakeLinks, FakeNic
from xml_samples import domain

from vferry.host.api import Announce, Done
from vferry.host.arriving import Arriving
from vferry.host.hypervisor import Hypervisor
from vferry.host.hypervisor_events import RESUMED, SUSPENDED
from vferry.host.sriov_netlink import Links
from vferry.model.host import NO_MAC, VfSettings
from vferry.model.problem import Problem

MAC = "52:54:00:aa:00:0b"
OTHER = "52:54:00:aa:00:0c"


class Host:
    """A host that guest1 is on its way to, and whose PF has a filter of some size."""

    def __init__(self, filters: int = 24) -> None:
        self.guest = FakeDomain(persistent=domain())
        self.library = FakeLibvirt(self.guest)
        self.nic = FakeNic(filters=filters)
        links = lambda: cast("Links", FakeLinks(self.nic))  # noqa: E731
        self.said: list[str] = []
        self.refuses = False
        self.arriving = Arriving(Hypervisor(library=self.library), self.say, links=links)

    def say(self, wanted: Announce) -> None:
        """What is announced, and what the PF passes by then."""
        if self.refuses:
            raise Problem("announce-failed", "Network is down")
        self.said.append(f"{wanted.mac} {self.nic.added}")

    def tell(self, event: int) -> None:
        """Has libvirt tell of the guest, and waits for what is done about it."""
        self.library.emit(self.library.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self.guest, event, 1)
        for thread in threading.enumerate():
            if thread.name == "resumed-guest1":
                thread.join()


def test_a_mac_is_tried_and_waits_for_the_resume() -> None:
    host = Host()
    assert host.arriving.expect("guest1", "pf0", MAC.upper()) == Done()
    assert [packet[-1] for packet in host.nic.packets] == ["add", "delete"]
    host.tell(SUSPENDED)
    assert host.nic.added == []
    host.tell(RESUMED)
    assert host.nic.added == [MAC]
    assert host.arriving.set("pf0", MAC, present=True) == Done(changed=False)


def test_all_macs_of_a_guest_come_at_once() -> None:
    host = Host()
    for mac in (MAC, OTHER, MAC):
        host.arriving.expect("guest1", "pf0", mac)
    host.tell(RESUMED)
    assert sorted(host.nic.added) == [MAC, OTHER]


def test_what_was_taken_back_does_not_come() -> None:
    host = Host()
    host.arriving.expect("guest1", "pf0", MAC)
    assert host.arriving.set("pf0", MAC.upper(), present=False) == Done(changed=False)
    host.tell(RESUMED)
    assert host.nic.added == []


def test_a_full_filter_is_found_before_the_guest_leaves() -> None:
    host = Host(filters=0)
    with pytest.raises(Problem, match="its filter is full"):
        host.arriving.expect("guest1", "pf0", MAC)
    host.tell(RESUMED)
    assert host.nic.added == []


def test_one_that_is_refused_in_the_end_does_not_keep_others_out() -> None:
    host = Host()
    for mac in (MAC, OTHER):
        host.arriving.expect("guest1", "pf0", mac)
    host.nic.filters = 1
    host.tell(RESUMED)
    assert host.nic.added == [MAC]


def test_a_pf_that_passes_it_already_goes_on_doing_so() -> None:
    host = Host()
    host.arriving.set("pf0", MAC, present=True)
    assert not host.arriving.expect("guest1", "pf0", MAC).changed
    assert host.nic.added == [MAC]


def announcements(guest: str, *macs: str) -> tuple[Announce, ...]:
    return tuple(Announce(guest=guest, mac=mac, interface="pf0") for mac in macs)


def test_a_guest_is_announced_when_it_resumes_and_once() -> None:
    host = Host()
    host.arriving.expect("guest1", "pf0", MAC)
    assert host.arriving.announce("guest1", announcements("guest1", MAC, OTHER)) == Done()
    assert not host.arriving.announce("guest1", announcements("guest1", MAC, OTHER)).changed
    host.arriving.announce("guest2", announcements("guest2", "52:54:00:aa:00:0d"))
    host.tell(SUSPENDED)
    assert host.said == []
    host.tell(RESUMED)
    assert host.said == [f"{MAC} ['{MAC}']", f"{OTHER} ['{MAC}']"]
    host.tell(RESUMED)
    assert len(host.said) == 2


def test_a_guest_that_is_expected_no_more_is_not_announced() -> None:
    host = Host()
    host.arriving.announce("guest1", announcements("guest1", MAC))
    assert host.arriving.announce("guest1", ()) == Done()
    host.tell(RESUMED)
    assert host.said == []


def test_what_cannot_be_announced_is_left_to_the_controller() -> None:
    host = Host()
    host.refuses = True
    host.arriving.announce("guest1", announcements("guest1", MAC))
    host.tell(RESUMED)
    assert host.said == []


def test_other_work_is_done_after_the_announcement_and_once() -> None:
    """What is wanted last for the same, whatever becomes of what was wanted for something else."""
    host = Host()
    done: list[str] = []

    def fails() -> None:
        raise Problem("connections-unwritable", "Connection refused")

    host.arriving.announce("guest1", announcements("guest1", MAC))
    for key, work in ((MAC, fails), (OTHER, lambda: done.append("early")), (OTHER, lambda: done.append(*host.said))):
        host.arriving.then("guest1", key, work)
    host.tell(SUSPENDED)
    assert done == []
    host.tell(RESUMED)
    host.tell(RESUMED)
    assert done == [f"{MAC} []"]


ARRIVING = VfSettings(mac=MAC, trust=True)


def test_a_vf_has_its_settings_at_once_and_the_mac_when_its_guest_resumes() -> None:
    host = Host()
    assert host.arriving.set_vf("pf0", 1, ARRIVING, "guest1") == Done()
    assert (host.nic.mac(1), host.nic.vfs[1]["IFLA_VF_TRUST"]) == (NO_MAC, {"trust": 1})
    host.tell(SUSPENDED)
    assert host.nic.mac(1) == NO_MAC
    host.tell(RESUMED)
    assert (host.nic.mac(0), host.nic.mac(1)) == (NO_MAC, MAC)
    assert host.arriving.set_vf("pf0", 1, ARRIVING) == Done(changed=False)


@pytest.mark.parametrize("anew", [VfSettings(trust=False), VfSettings(mac=NO_MAC), VfSettings(mac=OTHER)])
def test_who_sets_a_vf_anew_ends_its_waiting(anew: VfSettings) -> None:
    host = Host()
    host.arriving.set_vf("pf0", 1, ARRIVING, "guest1")
    host.arriving.set_vf("pf0", 1, anew)
    host.tell(RESUMED)
    assert host.nic.mac(1) == (anew.mac or NO_MAC)


def test_a_mac_waits_for_its_own_guest_and_once() -> None:
    host = Host()
    host.arriving.set_vf("pf0", 0, VfSettings(mac=OTHER), "guest2")
    host.arriving.set_vf("pf0", 1, ARRIVING, "guest1")
    host.tell(RESUMED)
    assert (host.nic.mac(0), host.nic.mac(1)) == (NO_MAC, MAC)
    host.nic.vfs[1]["IFLA_VF_MAC"] = {"mac": NO_MAC}
    host.tell(RESUMED)
    assert host.nic.mac(1) == NO_MAC


def test_settings_without_a_mac_wait_for_nobody() -> None:
    host = Host()
    host.arriving.set_vf("pf0", 1, VfSettings(trust=True), "guest1")
    host.tell(RESUMED)
    assert (host.nic.mac(1), host.nic.vfs[1]["IFLA_VF_TRUST"]) == (NO_MAC, {"trust": 1})


def test_a_setting_that_is_refused_is_said_before_the_guest_leaves() -> None:
    host = Host()
    host.nic.lacks = {"IFLA_VF_TRUST"}
    with pytest.raises(Problem) as caught:
        host.arriving.set_vf("pf0", 1, ARRIVING, "guest1")
    assert caught.value.code == "vf-setting-refused"


def test_a_mac_that_is_refused_in_the_end_keeps_the_guest_s_other_nics_from_nothing() -> None:
    host = Host()
    host.arriving.set_vf("pf0", 1, ARRIVING, "guest1")
    host.arriving.announce("guest1", announcements("guest1", MAC))
    host.nic.lacks = {"IFLA_VF_MAC"}
    host.tell(RESUMED)
    assert host.nic.mac(1) == NO_MAC
    assert len(host.said) == 1
