"""A NIC put on something else in its definition: the guest sees the same NIC, and nothing else is changed."""

from xml.etree import ElementTree as ET

import pytest

from vferry.model.definition import mac_of, shares_memory
from vferry.model.host import Attachment, AttachmentKind
from vferry.plan.nic_definition import named, on_bridge, on_relay, on_vf, queues_of, rules_of, vlan_of

MEMFD = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
MAC, OTHER = "52:54:00:12:34:56", "52:54:00:aa:bb:cc"
SEEN = "<mac address='{mac}'/><address type='pci' bus='0x03' slot='0x00'/><alias name='ua-nic'/><acpi index='7'/>"
KINDS = {
    "vf": "<interface type='hostdev' managed='yes'>{seen}<driver name='vfio'/><source>"
    "<address type='pci' domain='0x0000' bus='0x01' slot='0x10' function='0x0'/></source>"
    "<vlan><tag id='42'/></vlan></interface>",
    "bridge": "<interface type='bridge'>{seen}<source bridge='br0'/><target dev='vnet7'/><model type='e1000e'/>"
    "<virtualport type='openvswitch'/><driver name='vhost'/><mtu size='9000'/></interface>",
    "macvtap": "<interface type='direct' trustGuestRxFilters='yes'>{seen}<source dev='pf0' mode='bridge'/>"
    "<model type='virtio'/></interface>",
    "relay": "<interface type='vhostuser'>{seen}<source type='unix' path='/run/x.sock' mode='server'/>"
    "<model type='virtio'/></interface>",
}
MTU = "<mtu size='9000'/>"
BRIDGE = Attachment(device="br1")
MACVTAP = Attachment(kind=AttachmentKind.MACVTAP, device="pf1")


def domain(kind: str, more: str = "") -> str:
    nic = KINDS[kind].format(seen=SEEN.format(mac=MAC.upper()))
    other = KINDS["bridge"].format(seen=f"<mac address='{OTHER}'/>")
    return f"<domain><name>web</name>{more}<devices><disk/>{nic}{other}</devices></domain>"


def nic_of(xml: str) -> ET.Element:
    return next(nic for nic in ET.fromstring(xml).iterfind("devices/interface") if mac_of(nic) == MAC)  # noqa: S314


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda xml: on_bridge(xml, MAC, BRIDGE), {"type": "bridge"}),
        (lambda xml: on_bridge(xml, MAC, MACVTAP), {"type": "direct", "trustGuestRxFilters": "yes"}),
        (lambda xml: on_vf(xml, MAC, "0000:02:10.4"), {"type": "hostdev", "managed": "yes"}),
        (lambda xml: on_relay(xml, MAC, "/run/y.sock"), {"type": "vhostuser"}),
    ],
    ids=["bridge", "macvtap", "vf", "relay"],
)
def test_the_guest_sees_the_same_nic(kind: str, change, expected: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
    before, xml = domain(kind), change(domain(kind))
    nic = nic_of(xml)
    assert nic.attrib == expected
    shown = [ET.tostring(each) for each in nic_of(before) if each.tag in ("mac", "address", "alias", "acpi")]
    assert [ET.tostring(each) for each in nic if each.tag in ("mac", "address", "alias", "acpi")] == shown
    assert len({each.tag for each in nic}) == len(list(nic)), "nothing twice"
    model = nic.find("model")
    assert (None if model is None else model.get("type")) == (None if expected["type"] == "hostdev" else "virtio")
    (other,) = [each for each in ET.fromstring(xml).iterfind("devices/interface") if mac_of(each) == OTHER]  # noqa: S314
    assert other.find("target") is not None


def test_a_vf_is_named_with_its_vlan() -> None:
    nic = nic_of(on_vf(domain("relay"), MAC, "0000:02:10.4", vlan=42))
    address = nic.find("source/address")
    assert address is not None
    assert dict(address.attrib) == {
        "type": "pci",
        "domain": "0x0000",
        "bus": "0x02",
        "slot": "0x10",
        "function": "0x4",
    }
    assert vlan_of(on_bridge(domain("relay"), MAC, BRIDGE, vlan=42), MAC) == 42
    assert [vlan_of(domain(kind), MAC) for kind in KINDS] == [42, 0, 0, 0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"),
        ("<memoryBacking><locked/></memoryBacking>", "<memoryBacking><locked/><source type='memfd'/>"),
        ("<memoryBacking><hugepages/></memoryBacking>", "<memoryBacking><hugepages/><access mode='shared'/>"),
        ("<memoryBacking><access mode='private'/></memoryBacking>", "<access mode='shared'/><source type='memfd'/>"),
        (
            "<cpu><numa><cell memAccess='private'/></numa></cpu><memoryBacking><source type='file'/></memoryBacking>",
            "<cpu><numa><cell memAccess='shared'/></numa></cpu><memoryBacking><source type='file'/><access",
        ),
    ],
)
def test_a_relay_can_map_the_guest_s_memory(before: str, after: str) -> None:
    xml = on_relay(domain("bridge", before), MAC, "/run/y.sock")
    assert after in xml.replace('"', "'").replace(" />", "/>")
    assert on_relay(xml, MAC, "/run/y.sock") == xml


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        ("", ()),
        ("<filterref filter='clean-traffic'/>", ("filterref",)),
        ("<bandwidth><inbound average='1'/></bandwidth><port isolated='yes'/>", ("bandwidth", "port")),
        ("<port isolated='no'/>", ()),
    ],
)
def test_what_libvirt_does_on_a_bridge_is_found(rule: str, names: tuple[str, ...]) -> None:
    xml = domain("bridge").replace("<acpi index='7'/>", f"<acpi index='7'/>{rule}")
    assert rules_of(xml, MAC) == names


def test_queues_stay_where_the_nic_is_virtio() -> None:
    xml = domain("bridge").replace(
        "<driver name='vhost'/>", "<driver name='vhost' queues='4' rx_queue_size='1024'/>", 1
    )
    kept = {"queues": "4", "rx_queue_size": "1024"}
    for changed in (on_relay(xml, MAC, "/run/y.sock"), on_bridge(xml, MAC, BRIDGE)):
        driver = nic_of(changed).find("driver")
        assert driver is not None
        assert driver.attrib == kept
    assert nic_of(on_vf(xml, MAC, "0000:02:10.4")).find("driver") is None


def with_queues(xml: str, queues: int) -> str:
    model = "<model type='virtio'/>"
    assert xml.count(model) == 1
    return xml.replace(model, f"{model}<driver queues='{queues}'/>")


NOTED = "<metadata><vferry:guest xmlns:vferry='urn:vferry:1' address='10.9.0.11'/><other xmlns='urn:o'/></metadata>"


@pytest.mark.parametrize("kind", ["macvtap", "relay"])
@pytest.mark.parametrize("more", ["", NOTED])
def test_a_nic_that_comes_back_from_a_vf_has_its_queues_again(kind: str, more: str) -> None:
    """libvirt would forget them: they are in the metadata's one element that is vferry's, beside what is there."""
    xml = with_queues(domain(kind, more), 4)
    away = on_vf(on_vf(xml, MAC, "0000:02:10.4"), MAC, "0000:02:10.6")
    assert [queues_of(each, mac) for each in (xml, away) for mac in (MAC, OTHER)] == [4, 1, 4, 1]
    ours = ET.fromstring(away).findall("metadata/{urn:vferry:1}guest")  # noqa: S314
    assert [len(each) for each in ours] == [1]
    for back in (on_relay(away, MAC, "/run/y.sock"), on_bridge(away, MAC, BRIDGE), on_bridge(away, MAC, MACVTAP)):
        assert [dict(each.attrib) for each in nic_of(back).iterfind("driver")] == [{"queues": "4"}]
        assert queues_of(back, MAC) == 4
        left = ET.fromstring(back).find("metadata")  # noqa: S314
        was = ET.fromstring(xml).find("metadata")  # noqa: S314
        assert (None if left is None else ET.tostring(left)) == (None if was is None else ET.tostring(was))


def test_of_one_queue_nothing_is_written_down() -> None:
    for xml in (domain("relay"), with_queues(domain("relay"), 1)):
        away = on_vf(xml, MAC, "0000:02:10.4")
        assert (queues_of(away, MAC), "metadata" in away) == (1, False)
        assert nic_of(on_relay(away, MAC, "/run/y.sock")).find("driver") is None


@pytest.mark.parametrize("kind", ["bridge", "relay"])
def test_its_mtu_stays_where_libvirt_tells_the_guest_of_one(kind: str) -> None:
    told = f"<acpi index='7'/>{'' if kind == 'bridge' else MTU}"
    xml = domain(kind).replace("<acpi index='7'/>", told, 1)
    for changed in (on_relay(xml, MAC, "/run/y.sock"), on_bridge(xml, MAC, BRIDGE)):
        assert [each.attrib for each in nic_of(changed).iterfind("mtu")] == [{"size": "9000"}]
    for changed in (on_vf(xml, MAC, "0000:02:10.4"), on_bridge(xml, MAC, MACVTAP)):
        assert nic_of(changed).find("mtu") is None


def test_a_mac_is_looked_for_in_interfaces() -> None:
    assert [named(domain("bridge"), mac) for mac in (MAC, OTHER, "52:54:00:00:00:00")] == [1, 1, 0]


@pytest.mark.parametrize(
    ("said", "shared"),
    [
        ("", False),
        (MEMFD, True),
        ("<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>", True),
        ("<memoryBacking><hugepages/><access mode='shared'/></memoryBacking>", True),
        ("<memoryBacking><access mode='shared'/></memoryBacking>", False),
        ("<memoryBacking><source type='anonymous'/><access mode='shared'/></memoryBacking>", False),
        ("<memoryBacking><source type='memfd'/></memoryBacking>", False),
        ("<memoryBacking><source type='memfd'/><access mode='private'/></memoryBacking>", False),
        ("<memoryBacking><hugepages/></memoryBacking><cpu><numa><cell memAccess='shared'/></numa></cpu>", True),
        (
            f"{MEMFD}<cpu><numa><cell memAccess='private'/></numa></cpu>",
            False,
        ),
    ],
)
def test_whether_a_relay_can_map_the_memory_of_a_guest_that_runs(said: str, *, shared: bool) -> None:
    assert shares_memory(f"<domain>{said}<devices/></domain>") is shared


@pytest.mark.parametrize("kind", KINDS)
def test_a_guest_that_is_put_on_the_relay_has_such_memory(kind: str) -> None:
    assert shares_memory(on_relay(domain(kind), MAC, "/run/y.sock"))
