import subprocess
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_libvirt import PAUSED, RUNNING, SHUTOFF, FakeDomain, FakeError, FakeLibvirt
from xml_samples import AGENT, MAC, MACVTAP, PLAIN_HOSTDEV, STANDBY, VF, VF_INTERFACE, VHOSTUSER, domain

from vferry.host.api import PlugRelayed, PlugStandby, PlugVf
from vferry.host.domain_xml import read_domain
from vferry.host.hypervisor import Hypervisor
from vferry.host.hypervisor_devices import plug_relayed, plug_standby, plug_vf, unplug
from vferry.host.hypervisor_domains import define, destroy_incoming, read_definition, resume, undefine
from vferry.host.hypervisor_guests import describe, describe_all, guest_of
from vferry.model.guest import GuestState, VfRef
from vferry.model.host import NO_MAC, Attachment, Pf, Vf, VfSettings
from vferry.model.problem import Problem
from vferry.model.relay import RelayPort, RelayVf, SwitchPlace

NO_ROOT = Path("/nowhere")


def hypervisor(*domains: FakeDomain) -> tuple[Hypervisor, FakeLibvirt]:
    library = FakeLibvirt(*domains)
    return Hypervisor(library=library), library


def running(devices: str = VF_INTERFACE, persistent: str | None = None) -> FakeDomain:
    return FakeDomain(live=domain(devices), persistent=persistent or domain(devices))


def pf(mac: str = NO_MAC, vlan: int = 0) -> Pf:
    vf = Vf(pf="pf0", index=1, address=VF, settings=VfSettings(mac=mac, vlan=vlan))
    return Pf(name="pf0", address="0000:01:00.0", driver="igb", mac="52:54:00:00:01:01", vfs=(vf,))


# --- the connection --------------------------------------------------------------------------------------


def test_the_connection_is_kept_and_renewed_when_it_broke() -> None:
    host, library = hypervisor()
    assert host.connection() is host.connection()
    library.connections[0].alive = False
    assert host.connection() is library.connections[1]
    assert library.connections[1].callbacks, "the new one tells of events, too"


def test_an_unreachable_libvirt_is_a_problem() -> None:
    host, library = hypervisor()
    library.refuses_connections = True
    with pytest.raises(Problem) as caught:
        host.connection()
    assert caught.value.code == "libvirt-unreachable"


def test_an_unknown_guest_is_a_problem_or_nothing() -> None:
    host, _ = hypervisor()
    assert host.find("guest1") is None
    with pytest.raises(Problem) as caught:
        host.domain("guest1")
    assert caught.value.code == "guest-unknown"


@pytest.mark.parametrize(
    ("number", "code"), [(42, "guest-unknown"), (68, "guest-busy"), (86, "guest-agent-silent"), (1, "libvirt-failed")]
)
def test_errors_get_codes(number: int, code: str) -> None:
    host, _ = hypervisor()
    with pytest.raises(Problem, match="Doing it: it went wrong") as caught, host.calling("Doing it"):
        raise FakeError(number, "it went wrong.")
    assert caught.value.code == code


# --- guests ----------------------------------------------------------------------------------------------


def test_a_guest_on_an_interface_of_libvirts() -> None:
    host, library = hypervisor(running(VF_INTERFACE + AGENT))
    guest = guest_of(describe(host, library.domains["guest1"], NO_ROOT), "host1", [pf()])
    assert (guest.name, guest.host, guest.state) == ("guest1", "host1", GuestState.RUNNING)
    assert guest.agent_connected
    assert guest.address == "10.9.0.11"
    (nic,) = guest.nics
    assert (nic.mac, nic.model, nic.alias, nic.vlan) == (MAC, "hostdev", "ua-vf", 42)
    assert nic.vf == VfRef(pf="pf0", index=1, address=VF)


@pytest.mark.parametrize(
    ("on_pf", "persistent", "mac"),
    [
        ("52:54:00:aa:00:99", VF_INTERFACE, "52:54:00:aa:00:99"),
        (NO_MAC, VF_INTERFACE, MAC),
        (NO_MAC, STANDBY, NO_MAC),
    ],
)
def test_a_plain_host_device_has_the_mac_of_the_pf_or_of_the_definition(on_pf: str, persistent: str, mac: str) -> None:
    host, library = hypervisor(running(PLAIN_HOSTDEV, domain(persistent)))
    (nic,) = guest_of(describe(host, library.domains["guest1"], NO_ROOT), "host1", [pf(on_pf, 7)]).nics
    assert (nic.mac, nic.model, nic.vlan, nic.passed_through) == (mac, "hostdev", 7, True)


def test_a_host_device_that_is_no_vf_is_no_nic() -> None:
    host, library = hypervisor(running(PLAIN_HOSTDEV + STANDBY))
    (nic,) = guest_of(describe(host, library.domains["guest1"], NO_ROOT), "host1", []).nics
    assert (nic.model, nic.bridge, nic.vf, nic.teaming) == ("virtio", "br0", None, "persistent")


def test_a_nic_on_a_vf_s_interface_is_on_that_vf_and_not_passed_through(tmp_path: Path) -> None:
    host, library = hypervisor(running(MACVTAP))
    without = describe(host, library.domains["guest1"], tmp_path)
    (nic,) = guest_of(without, "host1", [pf()]).nics
    assert (nic.vf, nic.interface, without.addresses) == (None, "pf0v1", set())
    device = tmp_path / "sys/bus/pci/devices" / VF
    (device / "physfn").mkdir(parents=True)
    (tmp_path / "sys/class/net/pf0v1").mkdir(parents=True)
    (tmp_path / "sys/class/net/pf0v1/device").symlink_to(device)
    described = describe(host, library.domains["guest1"], tmp_path)
    (nic,) = guest_of(described, "host1", [pf(vlan=7)]).nics
    assert nic.vf == VfRef(pf="pf0", index=1, address=VF)
    assert (nic.model, nic.mac, nic.vlan, nic.interface, nic.passed_through) == ("virtio", MAC, 7, "pf0v1", False)
    assert described.addresses == {VF}


SOCKET = "/run/vferry/guest1.sock"
JOINED = RelayPort(guest="guest1", mac=MAC, socket=SOCKET, vf=RelayVf(pf="pf0", index=1, address=VF))
GONE = msgspec.structs.replace(JOINED, vf=RelayVf(pf="pf0", index=3, address="0000:01:10.6"))
ON_SWITCH = msgspec.structs.replace(JOINED, vf=None, switch=SwitchPlace(bridge="relay0", vlan=8))


@pytest.mark.parametrize(
    ("relayed", "vf"),
    [
        ({SOCKET: JOINED}, VfRef(pf="pf0", index=1, address=VF)),
        ({SOCKET: GONE}, None),
        ({"/run/vferry/guest2.sock": JOINED}, None),
        ({}, None),
    ],
)
def test_a_nic_on_a_socket_is_on_the_vf_that_the_relay_joins_it_to(
    relayed: dict[str, RelayPort], vf: VfRef | None
) -> None:
    host, library = hypervisor(running(VHOSTUSER))
    described = describe(host, library.domains["guest1"], NO_ROOT)
    (nic,) = guest_of(described, "host1", [pf(vlan=7)], relayed=relayed).nics
    assert (nic.mac, nic.model, nic.socket) == (MAC, "virtio", SOCKET)
    assert (nic.vf, nic.relayed, nic.vlan) == (vf, vf is not None, 7 if vf else 0)
    assert (nic.passed_through, nic.interface, described.addresses) == (False, None, set())


def test_a_nic_on_a_socket_is_a_port_of_the_relay_s_switch() -> None:
    host, library = hypervisor(running(VHOSTUSER))
    described = describe(host, library.domains["guest1"], NO_ROOT)
    (nic,) = guest_of(described, "host1", [pf(vlan=7)], relayed={SOCKET: ON_SWITCH}).nics
    assert (nic.vf, nic.relay_bridge, nic.relayed, nic.vlan, nic.bridge) == (None, "relay0", True, 8, None)


@pytest.mark.parametrize("devices", [STANDBY, MACVTAP, VF_INTERFACE])
def test_a_nic_on_none_is_not_on_the_relay_whatever_that_has_of_its_mac(devices: str) -> None:
    host, library = hypervisor(running(devices))
    (nic,) = guest_of(
        describe(host, library.domains["guest1"], NO_ROOT), "host1", [pf()], relayed={SOCKET: JOINED}
    ).nics
    assert (nic.socket, nic.relayed) == (None, False)


@pytest.mark.parametrize(
    ("state", "live", "expected", "reason"),
    [
        ((RUNNING, 1), True, GuestState.RUNNING, None),
        ((PAUSED, 2), True, GuestState.PAUSED, "migration"),
        ((PAUSED, 11), True, GuestState.PAUSED, "starting up"),
        ((PAUSED, 5), True, GuestState.PAUSED, "io error"),
        ((PAUSED, 77), True, GuestState.PAUSED, "unknown"),
        ((SHUTOFF, 4), False, GuestState.OFF, None),
    ],
)
def test_states(*, state: tuple[int, int], live: bool, expected: GuestState, reason: str | None) -> None:
    guest = FakeDomain(live=domain() if live else None, persistent=domain(), state=state)
    host, _ = hypervisor(guest)
    shown = guest_of(describe(host, guest, NO_ROOT), "host1", [])
    assert (shown.state, shown.pause_reason) == (expected, reason)


def test_a_vf_belongs_to_whoever_runs_on_it_or_would() -> None:
    elsewhere = VF_INTERFACE.replace("function='0x2'", "function='0x4'")
    host, _ = hypervisor(running(STANDBY, domain(elsewhere)), FakeDomain(persistent=domain(name="guest2")))
    assert [one.addresses for one in describe_all(host, NO_ROOT)] == [{"0000:01:10.4"}, {VF}]


def test_a_guest_that_vanishes_meanwhile_is_left_out() -> None:
    class Vanishing(FakeDomain):
        def XMLDesc(self, _flags: int) -> str:  # noqa: N802
            self.library.domains.pop("guest1", None)
            raise FakeError(FakeLibvirt.VIR_ERR_NO_DOMAIN, "gone")

    host, _ = hypervisor(Vanishing(persistent=domain()), FakeDomain(persistent=domain(name="guest2")))
    assert [one.now.name for one in describe_all(host, NO_ROOT)] == ["guest2"]


STAND_IN = PlugStandby(guest="guest1", mac=MAC, on=Attachment(device="br0"), alias="ua-vferry-standby", mtu=1500)


# --- devices ---------------------------------------------------------------------------------------------


def test_plugging_is_done_once_and_into_the_running_guest_only(tmp_path: Path) -> None:
    host, library = hypervisor(running(STANDBY))
    guest = library.domains["guest1"]
    assert plug_vf(host, PlugVf(guest="guest1", address=VF, alias="ua-vferry-vf")).changed
    assert not plug_vf(host, PlugVf(guest="guest1", address=VF, alias="ua-vferry-vf")).changed
    assert plug_standby(host, tmp_path, STAND_IN).changed
    assert not plug_standby(host, tmp_path, STAND_IN).changed
    assert guest.calls == [("attach", 1), ("attach", 1)]
    assert "ua-vferry" not in (guest.persistent_xml or "")


SHARED = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"


def test_a_nic_on_the_relay_is_plugged_where_that_can_map_the_memory() -> None:
    wanted = PlugRelayed(guest="guest1", mac=MAC, alias="ua-vferry-relay")
    guest = running()
    host, _ = hypervisor(guest)
    with pytest.raises(Problem, match="could map it") as caught:
        plug_relayed(host, wanted, "/run/x.sock")
    assert (caught.value.code, guest.calls) == ("memory-not-shared", [])

    assert guest.live_xml is not None
    guest.live_xml = guest.live_xml.replace("<devices>", f"{SHARED}<devices>")
    assert plug_relayed(host, wanted, "/run/x.sock").changed
    assert not plug_relayed(host, wanted, "/run/x.sock").changed
    (nic,) = (nic for nic in read_domain(guest.live_xml).nics if nic.alias == "ua-vferry-relay")
    assert (nic.type, nic.model, nic.mac, nic.socket) == ("vhostuser", "virtio", MAC, "/run/x.sock")


def test_a_guest_from_before_the_apparmor_rule_gets_its_profile_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Confined(FakeDomain):
        confined = True

        def attachDeviceFlags(self, xml: str, flags: int) -> None:  # noqa: N802
            if self.confined:
                raise FakeError(1, "unable to execute 'getfd': No file descriptor supplied via SCM_RIGHTS")
            super().attachDeviceFlags(xml, flags)

    guest = Confined(live=domain(), persistent=domain())
    host, _ = hypervisor(guest)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Problem, match="SCM_RIGHTS"):
        plug_standby(host, tmp_path, STAND_IN)

    parser = tmp_path / "apparmor_parser"
    parser.write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/loaded\n')
    parser.chmod(0o755)
    monkeypatch.setattr("vferry.host.hypervisor_devices.subprocess.run", _unconfining(guest))
    assert "AppArmor" in plug_standby(host, tmp_path, STAND_IN).detail
    assert (tmp_path / "loaded").read_text().endswith("/etc/apparmor.d/libvirt/libvirt-uuid-of-guest1\n")


def _unconfining(guest: Any) -> Any:
    run = subprocess.run

    def load(*arguments: Any, **options: Any) -> Any:
        guest.confined = False
        return run(*arguments, **options)

    return load


def test_unplugging_waits_and_is_done_once(tmp_path: Path) -> None:
    host, library = hypervisor(running(STANDBY + VF_INTERFACE))
    assert "gone after" in unplug(host, tmp_path, "guest1", "ua-vf", 1).detail
    assert not unplug(host, tmp_path, "guest1", "ua-vf", 1).changed
    assert library.domains["guest1"].calls == [("detach", "ua-vf", 1)]
    assert "ua-standby" in (library.domains["guest1"].live_xml or "")


@pytest.mark.parametrize(("lets_go", "why"), [(False, "refuses"), (None, "not let go within 0.05 s")])
def test_a_guest_that_keeps_a_device_is_a_problem(lets_go: bool | None, why: str, tmp_path: Path) -> None:  # noqa: FBT001
    guest = running()
    guest.lets_go = lets_go
    host, _ = hypervisor(guest)
    with pytest.raises(Problem, match=why) as caught:
        unplug(host, tmp_path, "guest1", "ua-vf", 0.05)
    assert caught.value.code == "unplug-refused"


@pytest.mark.parametrize("slow", [True, False])
def test_a_vf_that_the_guest_lets_go_of_too_late_is_plugged_again(
    *, slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = running(VF_INTERFACE)
    guest.lets_go = None
    host, _ = hypervisor(guest)
    with pytest.raises(Problem):
        unplug(host, tmp_path, "guest1", "ua-vf", 0.05)
    monkeypatch.setattr("vferry.host.hypervisor_devices.GRACE_S", 0.2)

    def let_go() -> None:
        guest.live_xml = domain()
        host.events.on_removed(None, guest, "ua-vf", None)

    if slow:
        threading.Timer(0.05, let_go).start()
    assert plug_vf(host, PlugVf(guest="guest1", address=VF, alias="ua-vferry-vf")).changed is slow
    assert VF in {nic.address for nic in read_domain(guest.live_xml or "").nics}


def test_an_unplug_that_is_under_way_is_waited_for(tmp_path: Path) -> None:
    class Asked(FakeDomain):
        def detachDeviceAlias(self, alias: str, flags: int) -> None:  # noqa: N802
            super().detachDeviceAlias(alias, flags)
            raise FakeError(1, "Device ua-vf is already in the process of unplug")

    guest = Asked(live=domain(), persistent=domain())
    host, _ = hypervisor(guest)
    assert unplug(host, tmp_path, "guest1", "ua-vf", 1).changed
    guest.live_xml, guest.lets_go = domain(), None
    with pytest.raises(Problem) as caught:
        unplug(host, tmp_path, "guest1", "ua-vf", 0.05)
    assert caught.value.code == "unplug-refused"


def test_devices_are_for_running_guests(tmp_path: Path) -> None:
    host, _ = hypervisor(FakeDomain(persistent=domain()))
    with pytest.raises(Problem) as caught:
        plug_vf(host, PlugVf(guest="guest1", address=VF, alias="ua-x"))
    assert caught.value.code == "guest-off"
    with pytest.raises(Problem):
        unplug(host, tmp_path, "guest1", "ua-vf", 1)


# --- definitions and states ------------------------------------------------------------------------------


def test_a_definition_is_read_live_and_persistent() -> None:
    host, _ = hypervisor(running(STANDBY, domain(VF_INTERFACE)))
    definition = read_definition(host, "guest1")
    assert "ua-standby" in (definition.live or "")
    assert "ua-vf" in definition.persistent


def test_a_definition_goes_to_an_older_libvirt() -> None:
    newer, _ = hypervisor(running())
    older, library = hypervisor()
    library.old = True
    definition = read_definition(newer, "guest1")
    assert "itco" in (definition.live or "")
    assert define(older, definition.persistent).changed
    with pytest.raises(Problem, match="itco"):
        define(older, definition.live or "")


def test_a_transient_guest_has_no_definition_to_take_along() -> None:
    host, _ = hypervisor(FakeDomain(live=domain()))
    with pytest.raises(Problem) as caught:
        read_definition(host, "guest1")
    assert caught.value.code == "guest-transient"


def test_defining_again_changes_nothing() -> None:
    host, library = hypervisor()
    assert define(host, domain()).changed
    assert not define(host, domain()).changed
    assert define(host, domain(STANDBY)).changed
    assert list(library.domains) == ["guest1"]


@pytest.mark.parametrize("state", [(RUNNING, 1), (PAUSED, 2)])
def test_a_guest_that_runs_is_not_undefined(state: tuple[int, int]) -> None:
    guest = FakeDomain(live=domain(), persistent=domain(), state=state)
    host, _ = hypervisor(guest)
    with pytest.raises(Problem) as caught:
        undefine(host, "guest1")
    assert caught.value.code == "guest-running"


def test_undefining_keeps_the_firmwares_variables() -> None:
    guest = FakeDomain(persistent=domain())
    host, _ = hypervisor(guest)
    assert undefine(host, "guest1").changed
    assert not undefine(host, "guest1").changed
    assert guest.calls == [("undefine", 8 | 1)]


def test_resuming() -> None:
    guest = FakeDomain(live=domain(), state=(PAUSED, 2))
    host, _ = hypervisor(guest, FakeDomain(persistent=domain(name="guest2")))
    assert resume(host, "guest1").changed
    assert not resume(host, "guest1").changed
    with pytest.raises(Problem) as caught:
        resume(host, "guest2")
    assert caught.value.code == "guest-off"


@pytest.mark.parametrize("reason", [2, 11])
def test_incoming_remains_are_ended(reason: int) -> None:
    host, library = hypervisor(FakeDomain(live=domain(), persistent=domain(), state=(PAUSED, reason)))
    assert destroy_incoming(host, "guest1").changed
    assert not destroy_incoming(host, "guest1").changed
    assert not destroy_incoming(host, "guest2").changed
    assert library.domains["guest1"].live_xml is None


@pytest.mark.parametrize(
    ("state", "code"),
    [((RUNNING, 1), "guest-running"), ((PAUSED, 1), "guest-not-incoming"), ((PAUSED, 5), "guest-not-incoming")],
)
def test_nothing_else_is_ended(state: tuple[int, int], code: str) -> None:
    guest = FakeDomain(live=domain(), persistent=domain(), state=state)
    host, _ = hypervisor(guest)
    with pytest.raises(Problem) as caught:
        destroy_incoming(host, "guest1")
    assert caught.value.code == code
    assert guest.live_xml
