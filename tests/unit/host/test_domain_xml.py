import pytest
from msgspec import structs
from xml_samples import (
    AGENT,
    GRAPHICS_CARD,
    MAC,
    MACVTAP,
    ON_NETWORK,
    ON_NETWORK_BRIDGE,
    ON_NETWORK_MACVTAP,
    ON_NETWORK_OVS,
    PLAIN_HOSTDEV,
    STANDBY,
    VF,
    VF_INTERFACE,
    VHOSTUSER,
    domain,
)

from vferry.host.api import PlugRelayed, PlugStandby, PlugVf
from vferry.host.domain_xml import NicXml, has_alias, read_domain, relayed_xml, standby_xml, vf_xml
from vferry.model.definition import attached, parse, pci_address, pci_attributes, with_vfs
from vferry.model.host import Attachment, AttachmentKind
from vferry.model.problem import Problem

STAND_IN = PlugStandby(guest="guest1", mac=MAC, on=Attachment(device="br0"), alias="ua-standby", mtu=9000)


def test_reads_what_a_guest_is() -> None:
    guest = read_domain(domain(VF_INTERFACE + AGENT, cpu="<cpu mode='host-passthrough' check='none'/>"))
    assert (guest.name, guest.uuid) == ("guest1", "7f0e0000-0000-4000-9000-000000000011")
    assert (guest.type, guest.arch, guest.machine) == ("kvm", "x86_64", "pc-q35-10.0")
    assert guest.emulator == "/usr/bin/qemu-system-x86_64"
    assert (guest.memory, guest.vcpus) == (256 << 20, 2)
    assert guest.cpu_mode == "host-passthrough"
    assert guest.disks == ("/srv/guest1.qcow2",)
    assert guest.paths == ("/boot/vmlinuz", "/usr/share/OVMF/OVMF_CODE.fd")
    assert guest.address == "10.9.0.11"
    assert guest.agent_connected


def test_a_guest_without_agent_or_metadata_has_neither() -> None:
    guest = read_domain("<domain><name>a</name><uuid>b</uuid><devices/></domain>")
    assert not guest.agent_connected
    assert guest.address is None
    assert guest.cpu is None
    assert guest.nics == ()


@pytest.mark.parametrize(
    ("devices", "nic"),
    [
        (
            VF_INTERFACE,
            NicXml(type="hostdev", model="hostdev", mac=MAC, alias="ua-vf", address=VF, vlan=42),
        ),
        (PLAIN_HOSTDEV, NicXml(type="hostdev", model="hostdev", alias="ua-vferry-vf", address=VF)),
        (
            STANDBY,
            NicXml(
                type="bridge",
                model="virtio",
                mac=MAC,
                alias="ua-standby",
                source="br0",
                target="vnet0",
                teaming="persistent",
            ),
        ),
        (
            PLAIN_HOSTDEV.replace("<alias", "<teaming type='transient' persistent='ua-standby'/><alias"),
            NicXml(
                type="hostdev",
                model="hostdev",
                alias="ua-vferry-vf",
                address=VF,
                teaming="transient",
                teamed_with="ua-standby",
            ),
        ),
        (
            "<interface type='network'><mac address='52:54:00:00:00:01'/><source network='default'/></interface>",
            NicXml(type="network", model="unknown", mac="52:54:00:00:00:01", source="default"),
        ),
        (
            "<interface type='direct'><mac address='52:54:00:00:00:01'/><source dev='eno1'/></interface>",
            NicXml(type="direct", model="unknown", mac="52:54:00:00:00:01", source="eno1"),
        ),
        (
            VHOSTUSER,
            NicXml(type="vhostuser", model="virtio", mac=MAC, alias="net0", source="/run/vferry/guest1.sock"),
        ),
        (
            "<interface type='hostdev'><mac address='52:54:00:00:00:01'/><acpi index='12'/></interface>",
            NicXml(type="hostdev", model="hostdev", mac="52:54:00:00:00:01", acpi_index=12),
        ),
    ],
)
def test_reads_a_nic(devices: str, nic: NicXml) -> None:
    assert read_domain(domain(devices)).nics == (nic,)


@pytest.mark.parametrize(
    ("devices", "kind", "source", "target", "interface"),
    [
        (ON_NETWORK, "network", "default", "vnet3", None),
        (ON_NETWORK_BRIDGE, "bridge", "br0", "vnet3", None),
        (ON_NETWORK_OVS, "bridge", "ovs0", "vnet3", None),
        (ON_NETWORK_MACVTAP, "direct", "pf0v1", "macvtap0", "pf0v1"),
    ],
)
def test_reads_a_nic_of_a_network_while_the_guest_runs(
    devices: str, kind: str, source: str, target: str, interface: str | None
) -> None:
    (nic,) = read_domain(domain(devices)).nics
    assert (nic.type, nic.source, nic.target, nic.interface) == (kind, source, target, interface)


@pytest.mark.parametrize(
    ("devices", "interface", "socket"),
    [
        (VHOSTUSER, None, "/run/vferry/guest1.sock"),
        (MACVTAP, "pf0v1", None),
        (STANDBY, None, None),
        (VF_INTERFACE, None, None),
    ],
)
def test_what_of_its_host_a_nic_is_on(devices: str, interface: str | None, socket: str | None) -> None:
    (nic,) = read_domain(domain(devices)).nics
    assert (nic.interface, nic.socket) == (interface, socket)


def test_a_nic_of_a_network_stays_one_and_one_on_its_bridge_or_interface_gets_another() -> None:
    bridge, macvtap = Attachment(device="br1"), Attachment(kind=AttachmentKind.MACVTAP, device="pf1v2")
    xml, missing = attached(domain(ON_NETWORK), {MAC: bridge})
    assert missing == [MAC], "the destination's libvirt finds the bridge by the network"
    assert read_domain(xml) == read_domain(domain(ON_NETWORK))
    for devices, on in ((ON_NETWORK_BRIDGE, bridge), (ON_NETWORK_MACVTAP, macvtap)):
        xml, missing = attached(domain(devices), {MAC: on})
        assert missing == []
        assert read_domain(xml).nics[0].source == on.device
        assert not any(name in xml for name in ("network=", "portgroup", "portid")), "which is of the source's"


def test_reads_plain_host_devices_but_only_those_on_pci() -> None:
    assert [nic.address for nic in read_domain(domain(GRAPHICS_CARD)).nics] == ["0000:65:00.0"]


@pytest.mark.parametrize(
    ("memory", "count"),
    [
        ("<memory>1024</memory>", 1 << 20),
        ("<memory unit='bytes'>4096</memory>", 4096),
        ("<memory unit='GiB'>2</memory>", 2 << 30),
        ("<memory unit='MB'>3</memory>", 3_000_000),
        ("", 0),
    ],
)
def test_memory_has_units(memory: str, count: int) -> None:
    assert read_domain(f"<domain><name>a</name>{memory}</domain>").memory == count


def plugged(address: str, alias: str, *, teamed_with: str | None = None, acpi_index: int | None = None) -> PlugVf:
    return PlugVf(guest="guest1", address=address, alias=alias, teamed_with=teamed_with, acpi_index=acpi_index)


@pytest.mark.parametrize("address", ["0000:01:10.2", "0001:ff:1f.7", "10000:e1:00.0"])
def test_pci_addresses_go_there_and_back(address: str) -> None:
    element = parse(f"<domain>{vf_xml(plugged(address, 'a'))}</domain>").find("hostdev/source/address")
    assert element is not None
    assert pci_address(element) == address
    assert element.attrib == pci_attributes(address)


def test_a_vf_is_plugged_as_a_plain_host_device_under_its_alias() -> None:
    teamed = read_domain(domain(vf_xml(plugged(VF, "ua-vf", teamed_with="ua-standby")))).nics[0]
    assert (teamed.alias, teamed.teaming, teamed.teamed_with) == ("ua-vf", "transient", "ua-standby")
    assert read_domain(domain(vf_xml(plugged(VF, "ua-vf", acpi_index=7)))).nics[0].acpi_index == 7
    devices = vf_xml(plugged(VF, "ua-vferry-vf"))
    assert "interface" not in devices
    assert 'managed="yes"' in devices
    assert read_domain(domain(devices)).nics == (
        NicXml(type="hostdev", model="hostdev", alias="ua-vferry-vf", address=VF),
    )


def test_the_standby_nic_is_in_the_vlan_of_its_vf() -> None:
    assert "vlan" not in standby_xml(STAND_IN)
    assert read_domain(domain(standby_xml(structs.replace(STAND_IN, vlan=7)))).nics[0].vlan == 7


def test_the_standby_nic_is_virtio_on_vhost() -> None:
    xml = standby_xml(STAND_IN)
    assert '<driver name="vhost" rx_queue_size="1024" />' in xml
    assert '<driver name="qemu" rx_queue_size="1024" />' in standby_xml(structs.replace(STAND_IN, vhost=False))
    assert '<mtu size="9000" />' in xml
    assert "mtu" not in standby_xml(structs.replace(STAND_IN, mtu=None))
    assert '<driver name="vhost" rx_queue_size="1024" queues="4" />' in standby_xml(structs.replace(STAND_IN, queues=4))
    assert read_domain(domain(xml)).nics == (
        NicXml(type="bridge", model="virtio", mac=MAC, alias="ua-standby", source="br0"),
    )


def test_a_relayed_nic_has_its_queues() -> None:
    wanted = PlugRelayed(guest="guest1", mac=MAC, alias="ua-relay")
    assert "driver" not in relayed_xml(wanted, "/run/x.sock")
    assert '<driver queues="4" />' in relayed_xml(structs.replace(wanted, queues=4), "/run/x.sock")


def test_the_standby_nic_is_a_port_of_open_vswitch_or_a_macvtap() -> None:
    port = standby_xml(structs.replace(STAND_IN, vlan=7, on=Attachment(kind=AttachmentKind.OPENVSWITCH, device="ovs0")))
    assert 'type="bridge"' in port
    assert '<virtualport type="openvswitch" />' in port
    assert '<vlan><tag id="7" /></vlan>' in port
    macvtap = standby_xml(
        structs.replace(STAND_IN, mtu=None, on=Attachment(kind=AttachmentKind.MACVTAP, device="eno1"))
    )
    assert '<source dev="eno1" mode="bridge" />' in macvtap
    assert 'trustGuestRxFilters="yes"' in macvtap
    assert "virtualport" not in macvtap
    assert read_domain(domain(macvtap)).nics[0].interface == "eno1"


def test_names_with_quotes_cannot_break_out_of_the_xml() -> None:
    xml = standby_xml(structs.replace(STAND_IN, on=Attachment(device="br0'/><evil a='\""), alias="ua-<b>&"))
    assert read_domain(domain(xml)).nics[0].source == "br0'/><evil a='\""


def test_has_alias_looks_at_devices_only() -> None:
    xml = domain(STANDBY)
    assert has_alias(xml, "ua-standby")
    assert not has_alias(xml, "ua-vf")


@pytest.mark.parametrize("devices", [VF_INTERFACE, PLAIN_HOSTDEV])
def test_replacing_a_vf_changes_its_address_on_the_host_alone(devices: str) -> None:
    before = read_domain(domain(devices))
    xml, _ = with_vfs(domain(devices), {VF: "0000:02:00.7"})
    after = read_domain(xml)
    assert [nic.address for nic in after.nics] == ["0000:02:00.7"]
    assert [nic.mac for nic in after.nics] == [nic.mac for nic in before.nics]
    assert "slot='0x00'" in xml.replace('"', "'"), "its address in the guest stays"
    assert after.address == "10.9.0.11", "metadata stays"
    assert "libosinfo:os" in xml


def test_replacing_a_vf_that_the_guest_has_not_changes_nothing() -> None:
    xml, missing = with_vfs(domain(), {"0000:09:00.0": "0000:02:00.7"})
    assert read_domain(xml) == read_domain(domain())
    assert missing == ["0000:09:00.0"]


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<domain>",
        "<network/>",
        '<!DOCTYPE d [<!ENTITY a "b">]><domain>&a;</domain>',
        "<domain>" + " " * (5 << 20) + "</domain>",
    ],
)
def test_what_is_no_definition_is_refused(xml: str) -> None:
    with pytest.raises(Problem) as caught:
        read_domain(xml)
    assert caught.value.code == "xml-invalid"
