"""The guests' definitions, and reading where they are."""

import os
import shlex
import subprocess
from contextlib import nullcontext
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from vferry.lab import archive, guests, guestxml, hosts, peer, places
from vferry.lab.topology import GUESTS, HOSTS, STARTED, VFS, Guest, guest_named, standby_named
from vferry.model.problem import Problem


def xml(name: str) -> ET.Element:
    guest = guest_named(name)
    assert guest is not None
    return ET.fromstring(guestxml.definition(guest, "pc-q35-10.0"))  # noqa: S314 - our own text


@pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.name)
def test_a_definition_is_well_formed_and_leaves_room_for_hotplug(guest: Guest) -> None:
    domain = xml(guest.name)
    ports = domain.findall("devices/controller[@model='pcie-root-port']")
    nics = domain.findall("devices/interface")
    assert len(ports) - len(nics) >= 6
    assert domain.findtext("name") == guest.name
    assert domain.findtext("memory") == str(guest.memory_mib)


@pytest.mark.parametrize("guest", [g for g in GUESTS if not g.own_system], ids=lambda guest: guest.name)
def test_the_kernel_command_line_says_what_a_guest_is(guest: Guest) -> None:
    words = (xml(guest.name).findtext("os/cmdline") or "").split()
    assert f"vferry.kind={guest.kind}" in words
    assert f"vferry.ip4={guest.address}/24" in words


def test_metadata_says_the_address() -> None:
    metadata = xml("guest1").find("metadata/{urn:vferry:1}guest")
    assert metadata is not None
    assert metadata.get("address") == "10.9.0.11"


@pytest.mark.parametrize(
    ("name", "kind", "source", "port"),
    [
        ("bridge", "bridge", {"bridge": "br0"}, None),
        ("ovs", "bridge", {"bridge": "br0"}, {"type": "openvswitch"}),
        ("bond", "bridge", {"bridge": "br0"}, None),
        ("macvtap", "direct", {"dev": "enp1s0", "mode": "bridge"}, None),
    ],
)
@pytest.mark.parametrize("guest", [guest for guest in GUESTS if guest.standby], ids=lambda guest: guest.name)
def test_a_virtio_nic_is_on_the_hosts_standby_path(
    guest: Guest, name: str, kind: str, source: dict[str, str], port: dict[str, str] | None
) -> None:
    domain = ET.fromstring(guestxml.definition(guest, "pc-q35-10.0", standby_named(name)))  # noqa: S314 - our own text
    (nic,) = (each for each in domain.iterfind("devices/interface") if each.get("type") != "hostdev")
    assert nic.get("type") == kind
    assert [each.attrib for each in nic.iterfind("source")] == [source]
    assert [each.attrib for each in nic.iterfind("virtualport")] == [port] * (port is not None)


def test_a_lone_guest_has_its_vf_and_nothing_else() -> None:
    nics = xml("guest1").findall("devices/interface")
    assert [nic.get("type") for nic in nics] == ["hostdev"]
    address = nics[0].find("source/address")
    assert address is not None
    assert (address.get("bus"), address.get("slot"), address.get("function")) == ("0x01", "0x10", "0x0")


def test_vfs_beyond_the_fourth_are_in_the_next_slot() -> None:
    assert guestxml.vf_slot(3).endswith("slot='0x10' function='0x6'")
    assert guestxml.vf_slot(4).endswith("slot='0x11' function='0x0'")
    assert guestxml.vf_slot(5).endswith("slot='0x11' function='0x2'")


def test_a_guest_in_a_vlan_has_a_subnet_of_its_own() -> None:
    guest = guests.named("vlan1")
    assert (guest.address, guest.address6) == ("10.9.7.17", "fd00:9:7::17")
    nic = xml("vlan1").find("devices/interface")
    assert nic is not None
    tag = nic.find("vlan/tag")
    assert tag is not None
    assert tag.get("id") == "7"
    assert "vferry.gw4=10.9.7.1 vferry.gw6=fd00:9:7::1" in (xml("vlan1").findtext("os/cmdline") or "")


def test_a_cloud_guest_boots_its_disk_and_reads_its_seed() -> None:
    domain = xml("cloud1")
    assert domain.findtext("os/initrd") == "/opt/vferry/lab/disk.cpio"
    seeds = [disk for disk in domain.findall("devices/disk") if disk.find("readonly") is not None]
    assert [disk.find("source").get("file") for disk in seeds] == ["/opt/vferry/lab/cloud1.iso"]  # type: ignore[union-attr]
    words = (domain.findtext("os/cmdline") or "").split()
    assert [word for word in words if word.startswith("vferry.")] == ["vferry.mac=52:54:00:aa:00:10"]


def test_a_guest_with_network_manager_boots_its_disk_and_is_told_nothing_else() -> None:
    domain = xml("nm1")
    assert domain.findtext("os/initrd") == "/opt/vferry/lab/disk.cpio"
    assert len(domain.findall("devices/disk")) == 1


def test_an_emulated_nic_is_on_the_bridge_without_vhost() -> None:
    (nic,) = xml("e1000e1").findall("devices/interface")
    assert nic.find("model").get("type") == "e1000e"  # type: ignore[union-attr]
    assert nic.find("source").get("bridge") == "br0"  # type: ignore[union-attr]
    assert nic.find("driver") is None
    assert "e1000e" in archive.GUEST_MODULES


def test_a_guest_with_a_kernel_of_its_own_boots_it() -> None:
    own = {guest.name: xml(guest.name).findtext("os/kernel") for guest in GUESTS if guest.kernel}
    assert own == {
        "oldest1": "/var/lib/vferry-lab/oldest/vmlinux",
        "newest1": "/var/lib/vferry-lab/newest/vmlinux",
    }
    assert xml("oldest1").findtext("os/initrd") == "/var/lib/vferry-lab/oldest/guest.cpio"
    assert {xml(guest.name).findtext("os/kernel") for guest in GUESTS if not guest.kernel} == {
        "/opt/vferry/lab/vmlinux"
    }


def test_a_pair_of_which_nobody_makes_one_is_not_offered_to_the_kernel() -> None:
    domain, namespace = xml("bare1"), "{http://libvirt.org/schemas/domain/qemu/1.0}"
    (device,) = domain.iter(f"{namespace}device")
    (offered,) = device.iter(f"{namespace}property")
    assert (device.get("alias"), offered.attrib) == (
        "ua-standby",
        {"name": "failover", "type": "bool", "value": "false"},
    )
    assert len(list(xml("failover1").iter(f"{namespace}device"))) == 0


def test_a_bond_has_a_vf_and_a_vhost_nic_with_one_mac() -> None:
    domain = xml("bond1")
    macs = [mac.get("address") for mac in domain.findall("devices/interface/mac")]
    assert len(macs) == 2
    assert len(set(macs)) == 1
    driver = domain.find("devices/interface[@type='bridge']/driver")
    assert driver is not None
    assert driver.get("name") == "vhost"


@pytest.mark.parametrize("name", ["failover1", "bare1"])
def test_a_teaming_pair_has_one_mac_and_names_its_other_half(name: str) -> None:
    standby, vf = xml(name).findall("devices/interface")
    assert [nic.find("teaming").attrib for nic in (standby, vf)] == [  # type: ignore[union-attr]
        {"type": "persistent"},
        {"type": "transient", "persistent": standby.find("alias").get("name")},  # type: ignore[union-attr]
    ]
    assert (standby.get("type"), vf.get("type")) == ("bridge", "hostdev")
    assert len({nic.find("mac").get("address") for nic in (standby, vf)}) == 1  # type: ignore[union-attr]


def test_nobody_else_is_in_a_teaming_pair() -> None:
    teamed = [guest.name for guest in GUESTS if xml(guest.name).find("devices/interface/teaming") is not None]
    assert teamed == ["failover1", "bare1"]


def test_only_the_plain_guest_has_no_agent() -> None:
    without = [g.name for g in GUESTS if xml(g.name).find("devices/channel") is None]
    assert without == ["plain1"]


def test_a_guest_on_a_macvtap_is_on_its_first_host_s_own_vf() -> None:
    (nic,) = xml("macvtap1").findall("devices/interface")
    source = nic.find("source")
    assert source is not None
    assert (nic.get("type"), source.attrib) == ("direct", {"dev": "enp1s0v6", "mode": "passthrough"})
    assert len({host.own_vf for host in HOSTS}) == len(HOSTS), "another interface on the other host"
    assert all(host.own_vf < VFS for host in HOSTS)


def test_a_guest_on_a_relay_makes_the_socket_and_shares_its_memory() -> None:
    domain = xml("relay1")
    (nic,) = domain.findall("devices/interface")
    source, backing = nic.find("source"), domain.find("memoryBacking")
    assert source is not None
    assert backing is not None
    assert nic.get("type") == "vhostuser"
    assert source.attrib == {"type": "unix", "path": "/run/vhost-user/relay1.sock", "mode": "server"}
    assert [(each.tag, each.attrib) for each in backing] == [
        ("source", {"type": "memfd"}),
        ("access", {"mode": "shared"}),
    ]
    others = [guest.name for guest in GUESTS if xml(guest.name).find("memoryBacking") is not None]
    assert others == ["relay1"]


@pytest.mark.parametrize(
    ("done", "missing"),
    [
        (subprocess.CompletedProcess([], 0, "vfg525400aa001b\n", ""), False),
        (subprocess.CompletedProcess([], 0, "\n", ""), True),
        (subprocess.CompletedProcess([], 127, "", "ovs-vsctl: not found"), True),
    ],
)
def test_a_guest_on_a_relay_is_not_started_without_its_port(
    done: subprocess.CompletedProcess[str], *, missing: bool
) -> None:
    asked: list[list[str]] = []

    class Lab:
        def run(self, host: str, argv: list[str]) -> subprocess.CompletedProcess[str]:
            assert host == "host1"
            asked.append(argv)
            return done

    with pytest.raises(Problem, match="has a port for relay1") if missing else nullcontext():
        guests._refuse_without_port(Lab(), guests.named("relay1"), "host1")  # type: ignore[arg-type]
    assert asked[0][-1] == "options:vhost-server-path=/run/vhost-user/relay1.sock"


@pytest.mark.parametrize(
    ("name", "entries"),
    [("guest2", ["52:54:00:aa:00:0c"]), ("relay1", []), ("bond1", []), ("macvtap1", [])],
)
def test_only_a_guest_behind_the_pf_gets_an_entry_there(tmp_path: Path, name: str, entries: list[str]) -> None:
    (tmp_path / "bridge").write_text(f'#!/bin/sh\necho "$3" >> {tmp_path}/entries\n')
    (tmp_path / "bridge").chmod(0o755)
    guest = guest_named(name)
    assert guest is not None
    subprocess.run(
        [places.FILES / "overlay/etc/libvirt/hooks/qemu", name, "started", "begin"],
        input=guestxml.definition(guest, "pc-q35-10.0"),
        text=True,
        check=True,
        capture_output=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    written = tmp_path / "entries"
    assert (written.read_text().split() if written.exists() else []) == entries


def test_guests_share_neither_addresses_nor_vfs() -> None:
    links = [link for g in GUESTS for link in g.links]
    for values in ([link.address for link in links], [link.address6 for link in links], [link.mac for link in links]):
        assert len(set(values)) == len(links)
    assert len({g.uuid for g in GUESTS}) == len(GUESTS)
    vfs = [vf for g in GUESTS if not g.spare for vf in g.vfs]
    assert len(set(vfs)) == len(vfs) <= VFS
    assert all(vf < VFS for g in GUESTS for vf in g.vfs)


def test_a_guest_with_two_vfs_has_two_nics_in_two_subnets() -> None:
    nics = xml("two1").findall("devices/interface")
    assert [nic.find("mac").get("address") for nic in nics] == ["52:54:00:aa:00:12", "52:54:00:aa:01:12"]  # type: ignore[union-attr]
    assert [nic.find("alias").get("name") for nic in nics] == ["ua-vf", "ua-vf1"]  # type: ignore[union-attr]
    words = (xml("two1").findtext("os/cmdline") or "").split()
    assert {"vferry.ip4=10.9.0.18/24", "vferry.second=52:54:00:aa:01:12", "vferry.second4=10.9.1.18/24"} < set(words)
    assert "vferry.second6=fd00:9:1::18/64" in words


class FakeLab:
    """Two hosts whose libvirt is asked only for lists, and to define and undefine."""

    def __init__(self, **listed: dict[str, bool]) -> None:
        self.listed = listed

    def run(self, host: str, argv: list[str], timeout: float = 120) -> subprocess.CompletedProcess[str]:
        assert timeout
        if argv[2:] == ["list", "--all"]:
            said = "".join(f" - {name} {'running' if on else 'shut off'}\n" for name, on in self.listed[host].items())
            return subprocess.CompletedProcess(argv, 0, said, "")
        for command in argv[2].split("; "):
            verb, name = command.split()
            if verb == "undefine":
                del self.listed[host][name]
            else:
                self.listed[host][Path(name).stem] = False
        return subprocess.CompletedProcess(argv, 0, "", "")


@pytest.mark.parametrize("name", ["two1", "plain1"])
def test_a_guest_that_no_host_defines_takes_the_place_of_those_that_are_off(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    lab = FakeLab(host1={"guest1": False, "bond1": False, "guest2": True}, host2={"guest1": True, "vlan1": False})
    monkeypatch.setattr(hosts, "running", lambda: list(HOSTS))
    found = guests.defined(lab, [guests.named(name)])  # type: ignore[arg-type]
    assert lab.listed == {"host1": {"guest1": False, "guest2": True, name: False}, "host2": {"guest1": True}}
    assert guests.place(found, name).host == "host1"


def test_nothing_is_undefined_where_all_are_defined(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = FakeLab(host1={"guest1": False, "bond1": False}, host2={})
    monkeypatch.setattr(hosts, "running", lambda: list(HOSTS))
    guests.defined(lab, [guests.named("guest1")])  # type: ignore[arg-type]
    assert lab.listed == {"host1": {"guest1": False, "bond1": False}, "host2": {}}


def test_only_spare_guests_are_not_defined_at_boot() -> None:
    usual = [guest.name for guest in GUESTS if not guest.spare]
    assert usual == ["guest1", "guest2", "bond1", "plain1", "dhcp1", "cloud1", "vlan1"]
    assert guestxml.file_name(guests.named("two1")) == "spare/two1.xml"
    assert guestxml.file_name(guests.named("vlan1")) == "vlan1.xml"


def test_the_guests_started_first_exist() -> None:
    assert [guests.named(name).name for name in STARTED] == ["guest1", "guest2"]
    with pytest.raises(Problem) as caught:
        guests.named("guest9")
    assert caught.value.code == "lab-no-such-guest"


def test_virsh_list_is_read() -> None:
    listed = " 1    guest1   running\n -    bond1    shut off\n 2    guest2   in shutdown\n"
    found = guests.parse("host1", listed)
    assert [(d.name, d.state, d.on) for d in found] == [
        ("guest1", "running", True),
        ("bond1", "shut off", False),
        ("guest2", "in shutdown", True),
    ]


def test_a_running_guest_hides_its_definition_elsewhere() -> None:
    domains = [guests.Domain("guest1", "host2", "running"), guests.Domain("guest1", "host1", "shut off")]
    assert guests.place(domains, "guest1").host == "host2"
    assert [row["host"] for row in guests.rows(domains)] == ["host2"]


def test_the_dhcp_guest_has_a_reservation() -> None:
    settings = peer.dhcp_settings(GUESTS)
    assert "static_lease 52:54:00:aa:00:0f 10.9.0.15" in settings
    assert settings.count("static_lease") == 1


def test_commands_for_the_peer_are_passed_word_by_word() -> None:
    assert shlex.join(peer.command(["echo", "a b"])).endswith("vferry-data echo 'a b'")


LOOK = "RIP=ffffffff81d12d60 RFL=00000002 [-------] CPL=0\n"


@pytest.mark.parametrize(
    ("looks", "lost"),
    [
        ([LOOK] * 4, True),
        ([*[LOOK] * 3, LOOK.replace("d60", "d62")], False),
        ([LOOK.replace("RFL=00000002", "RFL=00000246")] * 4, False),
        ([LOOK.replace("CPL=0", "CPL=3")] * 4, False),
        ([""] * 4, False),
    ],
)
def test_a_guest_is_lost_when_its_processor_stands_still_with_interrupts_off(looks: list[str], *, lost: bool) -> None:
    assert guests.stays(looks) is lost


class Silent:
    """A lab in which a guest answers once it was started again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers_after: int) -> None:
        self.now, self.starts, self.answers_after = 0.0, 0, answers_after
        monkeypatch.setattr("vferry.lab.guests.time.monotonic", self.tick)
        monkeypatch.setattr(guests, "where", lambda _lab, _name: guests.Domain("guest1", "host2", "running"))
        monkeypatch.setattr(guests, "is_lost", lambda *_arguments: True)
        monkeypatch.setattr(guests, "virsh", self.virsh)

    def tick(self) -> float:
        self.now += 0.5
        return self.now

    def virsh(self, _lab: object, host: str, commands: list[str]) -> None:
        assert (host, commands) == ("host2", ["destroy guest1", "start guest1"])
        self.starts += 1

    def peer(self, _command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0 if self.starts >= self.answers_after else 1)


@pytest.mark.parametrize(("answers_after", "starts"), [(0, 0), (2, 2)])
def test_a_guest_that_the_emulator_loses_is_started_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answers_after: int, starts: int
) -> None:
    lab = Silent(monkeypatch, answers_after)
    guests.answer(lab, guests.named("guest1"))  # type: ignore[arg-type]
    assert lab.starts == starts
    assert "guest1 answers at" in "".join(capsys.readouterr())


def test_it_is_not_started_again_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Silent(monkeypatch, 99)
    with pytest.raises(Problem, match="does not answer"):
        guests.answer(lab, guests.named("guest1"))  # type: ignore[arg-type]
    assert lab.starts == guests.MOST_RESTARTS


def test_a_guest_with_a_device_that_migrates_itself_says_so_to_qemu() -> None:
    domain, namespace = xml("mtty1"), "{http://libvirt.org/schemas/domain/qemu/1.0}"
    device = domain.find("devices/hostdev")
    assert device is not None
    assert (device.get("type"), device.find("source/address").get("uuid")) == ("mdev", guests.named("mtty1").device)  # type: ignore[union-attr]
    override = domain.find(f"{namespace}override/{namespace}device")
    assert override is not None
    assert override.get("alias") == device.find("alias").get("name")  # type: ignore[union-attr]
    properties = {each.get("name"): each.get("value") for each in override.iter(f"{namespace}property")}
    assert properties == {"enable-migration": "on", "x-device-dirty-page-tracking": "off"}
    assert [guest.name for guest in GUESTS if guest.serial] == ["mtty1"]
