"""A NIC of a guest that is off, put on something else in its definition. Pure: text in, text out."""

from xml.etree import ElementTree as ET

from vferry.model.definition import NAMESPACE, attach, mac_of, parse, pci_attributes
from vferry.model.host import Attachment

_KEPT = ("mac", "address", "alias", "acpi", "boot", "rom", "link")
"""What says of a NIC how the guest sees it, or whether it is plugged in."""
_METADATA, _OF_GUEST, _OF_NIC = "metadata", f"{{{NAMESPACE}}}guest", f"{{{NAMESPACE}}}nic"
"""Where a NIC's queues are while it is on a VF, for which libvirt keeps none; it has one element for each namespace."""


def on_bridge(xml: str, mac: str, on: Attachment, vlan: int = 0) -> str:
    """As a virtio NIC on a bridge, or by a macvtap on an interface."""
    # libvirt defines no macvtap with an MTU.
    domain, nic = _stripped(xml, mac, "driver", *(("mtu",) if on.bridged else ()))
    attach(nic, on)
    _in_vlan(nic, vlan)
    return _virtio(domain, nic, mac)


def on_vf(xml: str, mac: str, address: str, vlan: int = 0) -> str:
    """As the VF at a PCI address, to which libvirt gives MAC and VLAN as the guest starts."""
    queues = queues_of(xml, mac)
    domain, nic = _stripped(xml, mac)
    _forget_queues(domain, mac)
    if queues > 1:
        _note_queues(domain, mac, queues)
    nic.attrib.update(type="hostdev", managed="yes")
    ET.SubElement(ET.SubElement(nic, "source"), "address", {"type": "pci", **pci_attributes(address)})
    _in_vlan(nic, vlan)
    return ET.tostring(domain, encoding="unicode")


def on_relay(xml: str, mac: str, socket: str) -> str:
    """As a virtio NIC by vhost-user on a socket that QEMU serves, in memory that the relay can map, too."""
    domain, nic = _stripped(xml, mac, "driver", "mtu")
    nic.set("type", "vhostuser")
    ET.SubElement(nic, "source", type="unix", path=socket, mode="server")
    _share_memory(domain)
    return _virtio(domain, nic, mac)


def rules_of(xml: str, mac: str) -> tuple[str, ...]:
    """What libvirt does to a NIC's frames on a bridge, and could do to none on a VF: the names of its elements."""
    nic = _found(parse(xml), mac)
    rules = [name for name in ("filterref", "bandwidth") if nic.find(name) is not None]
    port = nic.find("port")
    vlan = nic.find("vlan")
    trunk = vlan is not None and (vlan.get("trunk") == "yes" or vlan.find("tag[@nativeMode]") is not None)
    several = vlan is not None and len(vlan.findall("tag")) > 1
    isolated = port is not None and port.get("isolated") == "yes"
    return (*rules, *(["port"] if isolated else []), *(["vlan"] if trunk or several else []))


def type_of(xml: str, mac: str) -> str:
    """What a NIC is on, by libvirt's name: ``hostdev``, ``vhostuser``, ``bridge``…"""
    return _found(parse(xml), mac).get("type", "")


def named(xml: str, mac: str) -> int:
    """How many `<interface>`s have a MAC."""
    return sum(mac_of(nic) == mac for nic in parse(xml).iterfind("devices/interface"))


def vlan_of(xml: str, mac: str) -> int:
    """The VLAN that a NIC is in by its definition; 0 for none."""
    tag = _found(parse(xml), mac).find("vlan/tag")
    return 0 if tag is None else int(tag.get("id", "0"))


def mtu_of(xml: str, mac: str) -> int:
    """The MTU that the guest is told of for a NIC by its definition; 0 for none."""
    said = _found(parse(xml), mac).find("mtu")
    return 0 if said is None else int(said.get("size", "0"))


def queues_of(xml: str, mac: str) -> int:
    """How many queues a virtio NIC has by its definition, or had before it came to a VF; 1 where nothing is said."""
    domain = parse(xml)
    said = _found(domain, mac).find("driver[@queues]")
    if said is None:
        said = _noted(domain, mac)
    return 1 if said is None else int(said.get("queues", "1"))


def _stripped(xml: str, mac: str, *kept: str) -> tuple[ET.Element, ET.Element]:
    """The definition, and its NIC with only what it is to the guest; of its driver, how many queues of what length."""
    domain = parse(xml)
    nic = _found(domain, mac)
    nic.attrib.clear()
    for element in [each for each in nic if each.tag not in (*_KEPT, *kept)]:
        nic.remove(element)
    for driver in nic.findall("driver"):
        driver.attrib.pop("name", None)
        if not driver.attrib:
            nic.remove(driver)
    return domain, nic


def _found(domain: ET.Element, mac: str) -> ET.Element:
    return next(nic for nic in domain.iterfind("devices/interface") if mac_of(nic) == mac)


def _virtio(domain: ET.Element, nic: ET.Element, mac: str) -> str:
    noted, driver = _noted(domain, mac), nic.find("driver")
    if noted is not None and driver is None:
        ET.SubElement(nic, "driver", queues=noted.get("queues", "1"))
    _forget_queues(domain, mac)
    ET.SubElement(nic, "model", type="virtio")
    return ET.tostring(domain, encoding="unicode")


def _noted(domain: ET.Element, mac: str) -> ET.Element | None:
    return domain.find(f"{_METADATA}/{_OF_GUEST}/{_OF_NIC}[@mac='{mac}']")


def _note_queues(domain: ET.Element, mac: str, queues: int) -> None:
    parent = domain
    for name in (_METADATA, _OF_GUEST):
        found = parent.find(name)
        parent = ET.SubElement(parent, name) if found is None else found
    ET.SubElement(parent, _OF_NIC, mac=mac, queues=str(queues))


def _forget_queues(domain: ET.Element, mac: str) -> None:
    """With what was made for them, and is empty now."""
    metadata = domain.find(_METADATA)
    guest = None if metadata is None else metadata.find(_OF_GUEST)
    noted = _noted(domain, mac)
    if metadata is None or guest is None or noted is None:
        return
    guest.remove(noted)
    if not len(guest) and not guest.attrib:
        metadata.remove(guest)
    if not len(metadata):
        domain.remove(metadata)


def _in_vlan(nic: ET.Element, vlan: int) -> None:
    if vlan:
        ET.SubElement(ET.SubElement(nic, "vlan"), "tag", id=str(vlan))


def _share_memory(domain: ET.Element) -> None:
    """Memory in a file that others can map: huge pages are one, and else memfd."""
    backing = domain.find("memoryBacking")
    if backing is None:
        backing = ET.SubElement(domain, "memoryBacking")
    if backing.find("source") is None and backing.find("hugepages") is None:
        ET.SubElement(backing, "source", type="memfd")
    access = backing.find("access")
    if access is None:
        access = ET.SubElement(backing, "access")
    access.set("mode", "shared")
    for cell in domain.iterfind("cpu/numa/cell[@memAccess]"):
        cell.set("memAccess", "shared")
