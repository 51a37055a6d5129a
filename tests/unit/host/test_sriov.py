import struct
from pathlib import Path
from typing import Any, cast

import pytest
from fake_netlink import BOND_INDEX, PF_INDEX, FakeLinks, FakeNic
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from vferry.host.api import DriverAbilities
from vferry.host.sriov import (
    decode_settings,
    free_vf,
    pf_driver,
    read_bonds,
    read_pfs,
    vf_address,
    vf_addresses,
    vf_under,
)
from vferry.host.sriov_netlink import (
    Links,
    decode,
    encode,
    get_link,
    learn,
    list_forwarding,
    list_vlans,
    read_error,
    read_forwarding,
    read_vlans,
    set_forwarding,
    set_vf,
    split,
)
from vferry.host.sriov_settings import GROUPS, apply_settings, ask_driver, encode_group
from vferry.model.host import NO_MAC, WIPED, Bond, LinkState, VfSettings
from vferry.model.problem import Problem

MAC = "52:54:00:aa:00:0b"
GUEST = VfSettings(
    mac=MAC, vlan=12, qos=3, trust=True, spoof_check=False, link_state=LinkState.AUTO, min_tx_rate=0, max_tx_rate=100
)


def links(nic: FakeNic) -> Links:
    return cast("Links", FakeLinks(nic))


# --- the wire --------------------------------------------------------------------------------------------


def attribute(kind: int, body: bytes) -> bytes:
    padding = b"\0" * (-len(body) % 4)
    return struct.pack("=HH", len(body) + 4, kind) + body + padding


def vf_message(kind: int, body: bytes) -> bytes:
    """What iproute2 sends: RTM_NEWLINK with IFLA_VFINFO_LIST (22), IFLA_VF_INFO (1) and one attribute."""
    nested = attribute(22, attribute(1, attribute(kind, body)))
    interface = struct.pack("=BxHiII", 0, 0, 7, 0, 0)
    return struct.pack("=IHHII", 16 + len(interface) + len(nested), 16, 0x5, 99, 0) + interface + nested


@pytest.mark.parametrize(
    ("group", "settings", "kind", "body"),
    [
        (("mac",), GUEST, 1, struct.pack("=I", 3) + bytes.fromhex("525400aa000b") + bytes(26)),
        (("mac",), WIPED, 1, struct.pack("=I", 3) + bytes(32)),
        (("vlan", "qos"), GUEST, 2, struct.pack("=III", 3, 12, 3)),
        (("spoof_check",), GUEST, 4, struct.pack("=II", 3, 0)),
        (("link_state",), VfSettings(link_state=LinkState.DISABLE), 5, struct.pack("=II", 3, 2)),
        (("min_tx_rate", "max_tx_rate"), GUEST, 6, struct.pack("=III", 3, 0, 100)),
        (("trust",), GUEST, 9, struct.pack("=II", 3, 1)),
    ],
)
def test_a_setting_is_encoded_as_the_kernel_wants_it(
    group: tuple[str, ...], settings: VfSettings, kind: int, body: bytes
) -> None:
    assert encode(set_vf(7, 3, *encode_group(group, settings)), 99) == vf_message(kind, body)


def test_every_setting_has_its_group() -> None:
    assert {name for group in GROUPS for name in group} == set(VfSettings.__struct_fields__)


@pytest.mark.parametrize(("present", "kind", "flags"), [(True, 28, 0x605), (False, 29, 0x5)])
def test_a_forwarding_entry_is_encoded_as_bridge_does(*, present: bool, kind: int, flags: int) -> None:
    body = struct.pack("=BxxxiHBB", 7, 4, 0xC0, 0x02, 0) + attribute(2, bytes.fromhex("525400aa000b"))
    expected = struct.pack("=IHHII", 16 + len(body), kind, flags, 5, 0) + body
    assert encode(set_forwarding(4, MAC, present=present), 5) == expected


def test_requests_are_encoded() -> None:
    body = struct.pack("=BxHiII", 0, 0, 7, 0, 0) + attribute(29, struct.pack("=I", 1))
    assert encode(get_link(7), 1) == struct.pack("=IHHII", 16 + len(body), 18, 0x5, 1, 0) + body
    assert encode(list_forwarding(), 2)[:8] == struct.pack("=IHH", 28, 30, 0x301)


@pytest.mark.parametrize(("hold", "flags"), [(False, 0x04), (True, 0x44)])
def test_a_port_is_taught_as_bridge_does(*, hold: bool, flags: int) -> None:
    body = struct.pack("=BxxxiHBB", 7, 4, 0x02, flags, 0) + attribute(2, bytes.fromhex("525400aa000b"))
    expected = struct.pack("=IHHII", 16 + len(body), 28, 0x505, 5, 0) + body
    assert encode(learn(4, MAC, hold=hold), 5) == expected


def test_the_vlans_of_a_bridge_s_ports() -> None:
    body = struct.pack("=BxHiII", 7, 0, 0, 0, 0) + attribute(29, struct.pack("=I", 2))
    assert encode(list_vlans(), 2) == struct.pack("=IHHII", 16 + len(body), 18, 0x301, 2, 0) + body
    passed = b"".join(attribute(2, struct.pack("=HH", flags, vlan)) for flags, vlan in ((6, 1), (0, 7)))
    port = struct.pack("=BxHiII", 7, 1, 3, 0, 0) + attribute(26, passed)
    other = struct.pack("=BxHiII", 7, 1, 4, 0, 0)
    answers = [struct.pack("=IHHII", 16 + len(link), 16, 2, 2, 0) + link for link in (port, other)]
    assert read_vlans(decode(ifinfmsg, answer) for answer in answers) == {3: (1, 7), 4: ()}


def test_a_packet_is_split_into_its_messages() -> None:
    done = struct.pack("=IHHIIi", 20, 2, 0, 1, 0, 0)
    refused = struct.pack("=IHHIIi", 20, 2, 0, 2, 0, -95)
    odd = struct.pack("=IHHII", 17, 16, 0, 3, 0) + b"x" + b"\0" * 3
    found = list(split(done + odd + refused))
    assert [(kind, sequence) for kind, sequence, _ in found] == [(2, 1), (16, 3), (2, 2)]
    assert [read_error(found[n][2]) for n in (0, 2)] == [0, 95]
    assert list(split(b"\0" * 40)) == [], "a length of zero does not loop"


def test_settings_are_decoded_from_what_the_kernel_sends() -> None:
    unsaid = 0xFFFFFFFF
    first = b"".join(
        (
            attribute(1, struct.pack("=I", 0) + bytes.fromhex("525400aa000b") + bytes(26)),
            attribute(2, struct.pack("=III", 0, 12, 3)),
            attribute(6, struct.pack("=III", 0, 10, 100)),
            attribute(4, struct.pack("=II", 0, 0)),
            attribute(5, struct.pack("=II", 0, 1)),
            attribute(9, struct.pack("=II", 0, 1)),
        )
    )
    second = b"".join(
        (
            attribute(1, struct.pack("=I", 1) + bytes(32)),
            attribute(4, struct.pack("=II", 1, unsaid)),
            attribute(9, struct.pack("=II", 1, unsaid)),
        )
    )
    body = struct.pack("=BxHiII", 0, 1, 7, 0, 0) + attribute(22, attribute(1, first) + attribute(1, second))
    message = decode(ifinfmsg, struct.pack("=IHHII", 16 + len(body), 16, 0, 1, 0) + body)
    assert decode_settings(message) == {
        0: VfSettings(
            mac=MAC,
            vlan=12,
            qos=3,
            min_tx_rate=10,
            max_tx_rate=100,
            spoof_check=False,
            link_state=LinkState.ENABLE,
            trust=True,
        ),
        1: VfSettings(mac=NO_MAC),
    }


def test_of_forwarding_entries_only_added_unicast_ones_count() -> None:
    class Entry(dict[str, Any]):
        def get_attr(self, _name: str) -> Any:
            return self["mac"]

    def entry(mac: str | None, flags: int = 2, state: int = 0x80) -> Entry:
        return Entry(mac=mac, flags=flags, state=state, ifindex=4)

    dump = [
        entry("52:54:00:AA:00:0B"),
        entry("33:33:00:00:00:01"),
        entry("52:54:00:00:00:01", flags=4),
        entry("52:54:00:00:00:02", state=0x02),
        entry(None),
    ]
    assert read_forwarding(dump) == {4: ("52:54:00:aa:00:0b",)}


# --- applying --------------------------------------------------------------------------------------------


def test_settings_are_applied_one_group_at_a_time_and_once() -> None:
    nic = FakeNic()
    assert apply_settings(links(nic), "pf0", 1, GUEST).changed
    assert decode_settings(FakeLinks(nic).get(PF_INDEX))[1] == GUEST
    assert all(len(packet) == 1 for packet in nic.packets)
    again = len(nic.packets)
    assert not apply_settings(links(nic), "pf0", 1, GUEST).changed
    assert len(nic.packets) == again


def test_what_is_not_wanted_stays_also_within_a_group() -> None:
    nic = FakeNic()
    apply_settings(links(nic), "pf0", 0, GUEST)
    apply_settings(links(nic), "pf0", 0, VfSettings(vlan=13))
    settings = decode_settings(FakeLinks(nic).get(PF_INDEX))[0]
    assert (settings.vlan, settings.qos, settings.mac) == (13, 3, MAC)


def test_wiping_skips_what_the_driver_does_not_know() -> None:
    nic = FakeNic()
    nic.hides = {"IFLA_VF_LINK_STATE", "IFLA_VF_TRUST"}
    nic.lacks = {"IFLA_VF_LINK_STATE", "IFLA_VF_TRUST"}
    apply_settings(links(nic), "pf0", 0, VfSettings(mac=MAC))
    done = apply_settings(links(nic), "pf0", 0, WIPED)
    assert done.changed
    assert "trust: not known to the driver" in done.detail
    assert nic.mac(0) == NO_MAC


@pytest.mark.parametrize(
    ("settings", "name"), [(VfSettings(link_state=LinkState.ENABLE), "link_state"), (VfSettings(trust=True), "trust")]
)
def test_what_the_driver_lacks_is_refused_by_name(settings: VfSettings, name: str) -> None:
    nic = FakeNic()
    nic.lacks = {"IFLA_VF_LINK_STATE", "IFLA_VF_TRUST"}
    with pytest.raises(Problem) as caught:
        apply_settings(links(nic), "pf0", 0, settings)
    assert caught.value.code == "vf-setting-refused"
    assert caught.value.attributes["setting"] == name


def test_a_driver_is_asked_what_it_lacks_and_nothing_is_changed(root: Path) -> None:
    nic = FakeNic(vfs=7)
    before = [structure.copy() for structure in nic.vfs]
    assert ask_driver(links(nic), root, "pf0") == DriverAbilities()
    nic.lacks = {"IFLA_VF_LINK_STATE", "IFLA_VF_RATE"}
    assert ask_driver(links(nic), root, "pf0") == DriverAbilities(lacks=("link_state", "min_tx_rate", "max_tx_rate"))
    assert nic.vfs == before
    assert not any(nic.packets)


def test_a_setting_that_did_not_take_is_refused() -> None:
    nic = FakeNic()
    nic.ignores = {"IFLA_VF_VLAN"}
    with pytest.raises(Problem, match="vlan is 0 after it was set to 12"):
        apply_settings(links(nic), "pf0", 0, GUEST)


def test_what_is_not_told_is_not_compared() -> None:
    nic = FakeNic()
    nic.hides = {"IFLA_VF_SPOOFCHK"}
    assert apply_settings(links(nic), "pf0", 0, VfSettings(spoof_check=False)).changed


@pytest.mark.parametrize(("pf", "index", "code"), [("pf9", 0, "interface-unknown"), ("pf0", 7, "vf-unknown")])
def test_a_vf_that_is_not_there_is_said_so(pf: str, index: int, code: str) -> None:
    with pytest.raises(Problem) as caught:
        apply_settings(links(FakeNic()), pf, index, WIPED)
    assert caught.value.code == code


# --- sysfs -----------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with one PF of two VFs, one of them with a guest's driver, and a NIC without SR-IOV."""
    make_host(tmp_path)
    return tmp_path


def make_host(root: Path) -> None:
    devices, net, drivers = root / "sys/bus/pci/devices", root / "sys/class/net", root / "sys/bus/pci/drivers"
    for driver in ("igb", "vfio-pci", "igbvf"):
        (drivers / driver).mkdir(parents=True)
    for address in ("0000:01:00.0", "0000:01:10.0", "0000:01:10.2", "0000:02:00.0"):
        (devices / address).mkdir(parents=True)
    pf = devices / "0000:01:00.0"
    (pf / "sriov_totalvfs").write_text("7\n")
    (pf / "vendor").write_text("0x8086\n")
    (pf / "device").write_text("0x10c9\n")
    (pf / "driver").symlink_to(drivers / "igb")
    (devices / "0000:01:10.0/driver").symlink_to(drivers / "vfio-pci")
    (root / "sys/kernel/iommu_groups/14").mkdir(parents=True)
    (devices / "0000:01:10.0/iommu_group").symlink_to(root / "sys/kernel/iommu_groups/14")
    for index, address in enumerate(("0000:01:10.0", "0000:01:10.2")):
        (pf / f"virtfn{index}").symlink_to(devices / address)
    for name, device in (("pf0", pf), ("eno1", devices / "0000:02:00.0"), ("pf0vf0", pf)):
        (net / name).mkdir(parents=True)
        (net / name / "device").symlink_to(device)
    (net / "pf0vf0/phys_port_name").write_text("pf0vf0\n")


def test_reads_functions(root: Path) -> None:
    nic = FakeNic()
    nic.added = [MAC]
    (pf,) = read_pfs(root, links(nic))
    assert (pf.name, pf.address, pf.driver, pf.mac, pf.mtu) == ("pf0", "0000:01:00.0", "igb", "52:54:00:00:01:01", 9000)
    assert pf.up
    assert (pf.eswitch, pf.switchdev) == (None, False)
    assert pf.forwarding == (MAC,)
    assert pf.forwarding_limit == 21
    assert [(vf.index, vf.address, vf.driver, vf.iommu_group) for vf in pf.vfs] == [
        (0, "0000:01:10.0", "vfio-pci", 14),
        (1, "0000:01:10.2", None, None),
    ]
    assert pf.vfs[0].settings.mac == NO_MAC


def test_a_pf_whose_vfs_have_representors(root: Path) -> None:
    for name in ("pf0", "pf0vf0"):
        (root / "sys/class/net" / name / "phys_switch_id").write_text("9c2f5e0003ebf4b8\n")
    (pf,) = read_pfs(root, links(FakeNic()))
    assert (pf.name, pf.eswitch, pf.switchdev) == ("pf0", "switchdev", True)
    assert [(vf.index, vf.representor) for vf in pf.vfs] == [(0, "pf0vf0"), (1, None)]
    (root / "sys/class/net/pf0vf0/phys_port_name").write_text("c1pf0vf0\n")
    assert [vf.representor for vf in read_pfs(root, links(FakeNic()))[0].vfs] == [None, None]


def test_reads_bonds(root: Path) -> None:
    nic = FakeNic()
    nic.added = [MAC]
    bond = root / "sys/class/net/bond0"
    (bond / "bonding").mkdir(parents=True)
    for name, value in (("bonding/mode", "802.3ad 4"), ("bonding/slaves", "pf0 pf1"), ("flags", "0x1403")):
        (bond / name).write_text(f"{value}\n")
    for name, value in (("mtu", "9000"), ("ifindex", str(BOND_INDEX))):
        (bond / name).write_text(f"{value}\n")
    assert read_bonds(root, links(nic)) == (
        Bond(name="bond0", mode="802.3ad", ports=("pf0", "pf1"), mtu=9000, forwarding=(MAC,)),
    )
    (bond / "flags").write_text("0x1402\n")
    assert not read_bonds(root, links(nic))[0].up


def give_interface(root: Path, index: int, name: str) -> None:
    """A VF with an interface, as its NIC driver makes it."""
    device = vf_device(root, index)
    (device / "net" / name).mkdir(parents=True)
    (device / "physfn").symlink_to(root / "sys/bus/pci/devices/0000:01:00.0")
    (root / "sys/class/net" / name).mkdir()
    (root / "sys/class/net" / name / "device").symlink_to(device)


def vf_device(root: Path, index: int) -> Path:
    return root / "sys/bus/pci/devices" / vf_address(root, "pf0", index)


def test_a_vf_has_an_interface_while_a_nic_driver_is_bound(root: Path) -> None:
    give_interface(root, 1, "pf0v1")
    (pf,) = read_pfs(root, links(FakeNic()))
    assert [vf.interface for vf in pf.vfs] == [None, "pf0v1"]


def test_the_vf_that_an_interface_is(root: Path) -> None:
    give_interface(root, 1, "pf0v1")
    assert vf_under(root, "pf0v1") == "0000:01:10.2"
    assert [vf_under(root, name) for name in ("pf0", "eno1", "gone")] == [None] * 3


def test_finds_a_vf_by_its_index(root: Path) -> None:
    assert vf_addresses(root, "pf0") == {0: "0000:01:10.0", 1: "0000:01:10.2"}
    assert vf_address(root, "pf0", 1) == "0000:01:10.2"
    assert pf_driver(root, "pf0") == "igb"
    for pf, index in (("pf0", 5), ("eno1", 0), ("none", 0)):
        with pytest.raises(Problem) as caught:
            vf_address(root, pf, index)
        assert caught.value.code == "vf-unknown"


def test_a_vf_given_back_is_taken_from_the_hosts_nic_driver(root: Path) -> None:
    device = root / "sys/bus/pci/devices/0000:01:10.2"
    assert free_vf(root, "0000:01:10.2") is None
    (device / "driver").symlink_to(root / "sys/bus/pci/drivers/igbvf")
    assert free_vf(root, "0000:01:10.2") == "igbvf"
    assert (device / "driver/unbind").read_text() == "0000:01:10.2"
