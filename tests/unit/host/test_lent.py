"""A VF that a guest has from vferry is wiped when the guest stops, and no other one is."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from fake_libvirt import FakeDomain, FakeLibvirt
from fake_netlink import FakeLinks, FakeNic
from test_sriov import make_host
from xml_samples import MAC, PLAIN_HOSTDEV, VF, domain

from vferry.host.api import Session
from vferry.host.claims import Claims
from vferry.host.hypervisor import Hypervisor
from vferry.host.hypervisor_events import STOPPED
from vferry.host.lent import GRACE_S, Lent
from vferry.host.sriov_netlink import Links
from vferry.model.host import NO_MAC
from vferry.model.problem import Problem

ALIAS = "ua-vferry-vf"


class Host:
    """A host with guest1, which has the second VF of its NIC as a plain host device."""

    def __init__(self, root: Path) -> None:
        self.root = root
        make_host(root)
        self.nic = FakeNic()
        self.nic.vfs[1]["IFLA_VF_MAC"] = {"mac": MAC}
        self.nic.vfs[1]["IFLA_VF_VLAN"] = {"vlan": 42, "qos": 0}
        self.guest = FakeDomain(live=domain(PLAIN_HOSTDEV), persistent=domain())
        self.library = FakeLibvirt(self.guest)
        self.claims = Claims(root / "claims", 2)
        self.slept = 0.0
        self.meanwhile: Callable[[], None] = lambda: None
        self.lent = self.agent()

    def agent(self) -> Lent:
        """The agent as it starts."""
        self.hypervisor = Hypervisor(library=self.library)
        links = lambda: cast("Links", FakeLinks(self.nic))  # noqa: E731
        return Lent(self.hypervisor, self.claims, self.root, self.root, links, self.pause)

    def pause(self, seconds: float) -> None:
        """What happens while the agent waits."""
        self.slept = seconds
        self.meanwhile()

    @property
    def settings(self) -> tuple[str, int]:
        return self.nic.mac(1), self.nic.vfs[1]["IFLA_VF_VLAN"]["vlan"]

    def stop(self) -> None:
        """The guest is ended, and libvirt tells."""
        self.hypervisor.connection()
        settled()
        self.guest.live_xml = None
        self.library.emit(self.library.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self.guest, STOPPED, 0)
        settled()


def settled() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith(("stopped-", "connected")):
            thread.join()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_vf_is_wiped_when_its_guest_stops(host: Host) -> None:
    assert host.lent.lend(VF, "guest1", ALIAS)
    host.lent.take_back()
    assert host.settings == (MAC, 42)
    host.stop()
    assert host.settings == (NO_MAC, 0)
    assert not (host.root / "lent.json").read_text().strip("{}")


def test_it_gets_the_spoof_check_that_its_driver_begins_with(host: Host) -> None:
    for vf in host.nic.vfs:
        vf["IFLA_VF_SPOOFCHK"] = {"spoofchk": 0}
    host.lent.lend(VF, "guest1", ALIAS)
    host.stop()
    assert (host.settings, host.nic.vfs[1]["IFLA_VF_SPOOFCHK"]) == ((NO_MAC, 0), {"spoofchk": 0})


def test_what_an_operation_has_begun_to_set_is_not_what_the_driver_begins_with(host: Host) -> None:
    for vf in host.nic.vfs:
        vf["IFLA_VF_SPOOFCHK"] = {"spoofchk": 0}
    host.claims.claim(Session(operation="op-1", epoch=1), "guest2", ("0000:01:10.0",))
    host.lent.lend(VF, "guest1", ALIAS)
    host.stop()
    assert (host.settings, host.nic.vfs[1]["IFLA_VF_SPOOFCHK"]) == ((NO_MAC, 0), {"spoofchk": 1})


def test_what_was_not_lent_is_left_as_it_is(host: Host) -> None:
    host.stop()
    assert host.settings == (MAC, 42)


def test_what_was_asked_back_is_left_to_the_one_who_asked(host: Host) -> None:
    host.lent.lend(VF, "guest1", ALIAS)
    host.lent.returned("guest1", "ua-other")
    assert not host.lent.lend(VF, "guest1", ALIAS)
    host.lent.returned("guest1", ALIAS)
    host.stop()
    assert host.settings == (MAC, 42)


def test_what_stopped_without_an_agent_is_wiped_by_the_next(host: Host) -> None:
    host.lent.lend(VF, "guest1", ALIAS)
    host.guest.live_xml = None
    host.agent().take_back()
    assert host.settings == (NO_MAC, 0)


def test_what_stopped_without_a_connection_is_wiped_after_the_next(host: Host) -> None:
    host.lent.lend(VF, "guest1", ALIAS)
    host.guest.live_xml = None
    host.hypervisor.connection()
    settled()
    assert host.settings == (NO_MAC, 0)


def test_a_vf_that_an_operation_has_claimed_waits(host: Host) -> None:
    host.lent.lend(VF, "guest1", ALIAS)
    session = Session(operation="op-1", epoch=1)
    host.claims.claim(session, "guest1", (VF,))
    host.stop()
    assert host.settings == (MAC, 42)
    host.claims.release(session)
    host.lent.take_back()
    assert host.settings == (NO_MAC, 0)


def test_a_vf_that_another_guest_has_by_now_is_that_one_s(host: Host) -> None:
    host.lent.lend(VF, "guest1", ALIAS)
    host.library.domains["guest2"] = FakeDomain(live=domain(PLAIN_HOSTDEV, name="guest2"), persistent=None)
    host.library.domains["guest2"].library = host.library
    host.stop()
    assert host.settings == (MAC, 42)
    del host.library.domains["guest2"]
    host.lent.take_back()
    assert host.settings == (MAC, 42), "no longer lent"


def test_a_guest_that_is_only_started_anew_is_waited_for(host: Host) -> None:
    host.lent.lend(VF, "guest1", ALIAS)
    running = host.guest.live_xml

    def start() -> None:
        host.guest.live_xml = running

    host.meanwhile = start
    host.stop()
    assert host.slept == GRACE_S
    assert host.nic.packets == []
    host.meanwhile = lambda: None
    host.stop()
    assert host.settings == (NO_MAC, 0), "still lent"


def test_a_libvirt_that_does_not_answer_after_the_wiping_has_it_put_back(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.lent.lend(VF, "guest1", ALIAS)
    looks: Iterator[dict[str, str]] = iter([{}])

    def users() -> dict[str, str]:
        for found in looks:
            return found
        raise Problem("libvirt-unreachable", "It does not answer")

    monkeypatch.setattr(host.lent, "_users", users)
    host.lent.take_back()
    assert host.settings == (MAC, 42)
    monkeypatch.undo()
    host.guest.live_xml = None
    host.lent.take_back()
    assert host.settings == (NO_MAC, 0)


def test_a_guest_that_is_started_again_meanwhile_keeps_what_libvirt_has_set(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.lent.lend(VF, "guest1", ALIAS)
    looks = iter([{}, {VF: "guest1"}])
    monkeypatch.setattr(host.lent, "_users", lambda: next(looks))
    host.lent.take_back()
    assert host.settings == (MAC, 42)


def test_a_libvirt_that_does_not_answer_is_asked_later(host: Host) -> None:
    host.lent.lend(VF, "guest1", ALIAS)
    host.guest.live_xml = None
    host.library.refuses_connections = True
    host.lent.take_back()
    assert host.settings == (MAC, 42)
    host.library.refuses_connections = False
    host.lent.take_back()
    assert host.settings == (NO_MAC, 0)
