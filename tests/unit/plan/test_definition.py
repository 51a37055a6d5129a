"""A guest's definition for its destination: the VFs' addresses change, and nothing else does."""

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.model.definition import attached, pci_address, with_vfs
from vferry.model.host import Attachment, AttachmentKind
from vferry.model.problem import Problem
from vferry.plan.definition import rewritten

DOMAIN = """<domain type='kvm'>
  <name>web</name>
  <uuid>7f1c2c3e-0000-4000-8000-000000000001</uuid>
  <metadata><app:info xmlns:app='urn:app:1' owner='ops'/></metadata>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='block' device='disk'>
      <source dev='/dev/disk/by-id/virtio-web'/>
      <target dev='vda' bus='virtio'/>
      <address type='pci' domain='0x0000' bus='0x01' slot='0x10' function='0x0'/>
    </disk>
    <interface type='hostdev' managed='yes'>
      <mac address='52:54:00:12:34:56'/>
      <driver name='vfio'/>
      <source><address type='pci' domain='0x0000' bus='0x01' slot='0x10' function='0x0'/></source>
      <vlan><tag id='42'/></vlan>
      <alias name='ua-vf'/>
      <address type='pci' domain='0x0000' bus='0x01' slot='0x10' function='0x0'/>
    </interface>
    <interface type='bridge'>
      <mac address='52:54:00:aa:bb:cc'/>
      <source bridge='br0'/>
      <model type='virtio'/>
      <address type='pci' domain='0x0000' bus='0x01' slot='0x10' function='0x2'/>
    </interface>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <source><address domain='0x0000' bus='0x01' slot='0x10' function='0x2'/></source>
      <alias name='ua-vferry-vf-525400998877'/>
      <address type='pci' domain='0x0000' bus='0x07' slot='0x00' function='0x0'/>
    </hostdev>
    <hostdev mode='subsystem' type='usb'>
      <source><vendor id='0x1234'/><product id='0xbeef'/></source>
    </hostdev>
  </devices>
</domain>"""


def sources(xml: str) -> list[str | None]:
    root = ET.fromstring(xml)  # noqa: S314 - our own
    return [pci_address(address) for address in root.findall("./devices/*/source/address")]


def without_sources(xml: str) -> str:
    root = ET.fromstring(xml)  # noqa: S314 - our own
    for source in root.findall("./devices/*/source"):
        for address in source.findall("address"):
            source.remove(address)
    return ET.tostring(root, encoding="unicode")


def test_an_interface_and_a_plain_host_device_get_their_new_addresses() -> None:
    moved = {"0000:01:10.0": "0000:81:02.5", "0000:01:10.2": "0001:82:1f.7"}
    xml, missing = with_vfs(DOMAIN, moved)
    assert sources(xml) == ["0000:81:02.5", "0001:82:1f.7"]
    assert missing == []


def test_nothing_else_changes() -> None:
    """Neither where a device sits in the guest, though its address may be spelt like a VF's, nor any bridge NIC."""
    xml, _ = with_vfs(DOMAIN, {"0000:01:10.0": "0000:81:02.5", "0000:01:10.2": "0001:82:1f.7"})
    assert without_sources(xml) == without_sources(DOMAIN)


def test_two_vfs_may_change_places() -> None:
    xml, missing = with_vfs(DOMAIN, {"0000:01:10.0": "0000:01:10.2", "0000:01:10.2": "0000:01:10.0"})
    assert (sources(xml), missing) == (["0000:01:10.2", "0000:01:10.0"], [])


def test_an_address_that_it_does_not_name_is_said() -> None:
    xml, missing = with_vfs(DOMAIN, {"0000:01:11.0": "0000:01:10.0", "0000:01:10.0": "0000:01:10.4"})
    assert missing == ["0000:01:11.0"]
    assert sources(xml) == ["0000:01:10.4", "0000:01:10.2"]


def test_nothing_to_move_is_fine() -> None:
    assert with_vfs("<domain><devices/></domain>", {})[1] == []


@pytest.mark.parametrize("bad", ["", "01:10.0", "0000:01:10.8", "0000:01:10.0\n", "0000:01:10.0' x='"])
def test_what_is_no_address_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="not a PCI address"):
        with_vfs(DOMAIN, {"0000:01:10.0": bad})


def test_what_is_on_another_bus_than_pci_is_no_vf() -> None:
    usb = "<hostdev type='usb'><source><address bus='1' device='2'/></source></hostdev>"
    xml = f"<domain><devices>{usb}</devices></domain>"
    there, missing = with_vfs(xml, {"0000:01:00.0": "0000:01:10.0"})
    assert (without_blanks(there), missing) == (without_blanks(xml), ["0000:01:00.0"])


@pytest.mark.parametrize("bad", ["<network/>", "<!DOCTYPE d><domain/>", "<domain>"])
def test_what_is_no_definition_is_not_rewritten(bad: str) -> None:
    with pytest.raises(Problem) as caught:
        rewritten(bad, {}, {})
    assert caught.value.code == "xml-invalid"


MACVTAPS = """<domain><devices>
  <interface type='direct'>
    <mac address='52:54:00:12:34:56'/><source dev='ens1v2' mode='passthrough'/>
    <target dev='macvtap0'/><model type='virtio'/><address type='pci' bus='0x02'/>
  </interface>
  <interface type='direct'>
    <mac address='52:54:00:12:34:57'/><source dev='eno1' mode='bridge'/><target dev='mine'/>
  </interface>
  <interface type='bridge'><mac address='52:54:00:12:34:56'/><source bridge='br0'/><target dev='vnet0'/></interface>
</devices></domain>"""


def on(interfaces: dict[str, str]) -> dict[str, Attachment]:
    return {mac: Attachment(kind=AttachmentKind.MACVTAP, device=name) for mac, name in interfaces.items()}


def test_a_macvtap_is_put_on_another_interface_and_named_anew() -> None:
    moved = {"52:54:00:12:34:56": "ens9v0", "52:54:00:12:34:57": "eno2", "52:54:00:12:34:99": "ens9v1"}
    xml, missing = attached(MACVTAPS, on(moved))
    assert missing == ["52:54:00:12:34:99"]
    expected = MACVTAPS.replace("ens1v2", "ens9v0").replace("eno1", "eno2").replace("<target dev='macvtap0'/>", "")
    assert without_blanks(xml) == without_blanks(expected)


VPORT = "<virtualport type='openvswitch'><parameters interfaceid='7f0e0000-0000-4000-8000-000000000001'/></virtualport>"
BRIDGED = "<domain><devices><interface type='bridge'><mac address='52:54:00:12:34:56'/><source bridge='{}'/>"
BRIDGED += "{}<target dev='{}'/><mtu size='9000'/><alias name='ua-x'/></interface></devices></domain>"
NEW_PORT = "<virtualport type='openvswitch'/>"


@pytest.mark.parametrize(
    ("before", "kind", "port"),
    [
        ("", AttachmentKind.OPENVSWITCH, NEW_PORT),
        (VPORT, AttachmentKind.OPENVSWITCH, VPORT),
        (VPORT, AttachmentKind.BRIDGE, ""),
        ("", AttachmentKind.BRIDGE, ""),
    ],
)
def test_a_bridge_may_be_another_kind_and_one_that_stays_open_vswitch_keeps_its_port(
    before: str, kind: AttachmentKind, port: str
) -> None:
    there = Attachment(kind=kind, device="there0")
    xml, missing = attached(BRIDGED.format("br0", before, "vnet0"), {"52:54:00:12:34:56": there})
    assert missing == []
    (nic,) = ET.fromstring(xml).iterfind("devices/interface")  # noqa: S314 - our own
    kept = [element.tag for element in nic if element.tag != "virtualport"]
    assert kept == ["mac", "source", "target", "mtu", "alias"]
    said = "".join(ET.tostring(element, encoding="unicode") for element in nic.iterfind("virtualport"))
    assert without_blanks(f"<a>{said}</a>") == without_blanks(f"<a>{port}</a>")
    assert "there0" in xml


def test_a_standby_nic_goes_from_a_bridge_to_a_macvtap_and_back() -> None:
    before = BRIDGED.format("br0", VPORT, "vnet0")
    there, _ = attached(before, on({"52:54:00:12:34:56": "eno2"}))
    (nic,) = ET.fromstring(there).iterfind("devices/interface")  # noqa: S314 - our own
    assert nic.attrib == {"type": "direct", "trustGuestRxFilters": "yes"}
    assert [element.attrib for element in nic.iterfind("source")] == [{"dev": "eno2", "mode": "bridge"}]
    assert [nic.find("target"), nic.find("virtualport")] == [None, None]
    back, _ = attached(there, {"52:54:00:12:34:56": Attachment(device="br0")})
    (nic,) = ET.fromstring(back).iterfind("devices/interface")  # noqa: S314 - our own
    assert nic.get("type") == "bridge"
    assert [element.attrib for element in nic.iterfind("source")] == [{"bridge": "br0"}]


def test_a_macvtap_s_mac_may_be_written_in_capitals() -> None:
    xml, missing = attached(MACVTAPS.replace("12:34:56", "AB:CD:EF"), on({"52:54:00:ab:cd:ef": "ens9v0"}))
    assert ("ens9v0" in xml, missing) == (True, [])


def test_vfs_and_macvtaps_are_rewritten_together() -> None:
    both = DOMAIN.replace(
        "<interface type='bridge'>",
        MACVTAPS[len("<domain><devices>") :].split("<interface type='bridge'>")[0] + "<interface type='bridge'>",
    )
    xml, missing = rewritten(
        both,
        {"0000:01:10.0": "0000:81:02.5", "0000:01:1f.0": "0000:81:02.7"},
        on({"52:54:00:12:34:57": "eno2", "a": "b"}),
    )
    assert sources(xml)[0] == "0000:81:02.5"
    assert 'dev="eno2"' in xml
    assert missing == ["0000:01:1f.0", "a"]


def without_blanks(xml: str) -> str:
    return "".join(ET.canonicalize(xml, strip_text=True).split())


ADDRESS = st.builds(
    "{:04x}:{:02x}:{:02x}.{:x}".format,
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFF),
    st.integers(0, 0x1F),
    st.integers(0, 7),
)


@given(first=ADDRESS, second=ADDRESS)
def test_there_and_back_is_where_it_was(first: str, second: str) -> None:
    there, _ = with_vfs(DOMAIN, {"0000:01:10.0": first})
    assert sources(there)[0] == first
    if first not in ("0000:01:10.2", second):
        back, _ = with_vfs(there, {first: "0000:01:10.0"})
        assert sources(back) == sources(DOMAIN)
