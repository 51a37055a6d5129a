"""What both the planner and an agent change in a guest's libvirt definition. Pure: text in, text out."""

import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree as ET

from vferry.model.host import Attachment, AttachmentKind
from vferry.model.problem import Problem

NAMESPACE = "urn:vferry:1"
LIMIT = 4 << 20
GENERATED = ("macvtap", "macvlan", "vnet")
"""How the devices are called that libvirt names itself."""
OF_NETWORK = ("network", "portgroup", "portid")
"""What the source of a running guest's NIC says beside its bridge or interface, if that is from a libvirt network."""
PCI_ADDRESS = re.compile(r"([0-9a-f]{4,}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")
PCI_ATTRIBUTES = ("domain", "bus", "slot", "function")

# Written back with the prefixes that people know.
ET.register_namespace("vferry", NAMESPACE)
ET.register_namespace("qemu", "http://libvirt.org/schemas/domain/qemu/1.0")
ET.register_namespace("libosinfo", "http://libosinfo.org/xmlns/libvirt/domain/1.0")


def parse(xml: str) -> ET.Element:
    """The `<domain>` element. Problem ``xml-invalid``: also for a document type, which libvirt never writes."""
    if len(xml) > LIMIT or "<!DOCTYPE" in xml:
        raise _invalid("it is too long or declares a document type")
    try:
        root = ET.fromstring(xml)  # noqa: S314 - from libvirt or an authenticated controller, without a DOCTYPE
    except ET.ParseError as error:
        raise _invalid(str(error)) from error
    if root.tag != "domain":
        raise _invalid(f"<{root.tag}> is not a <domain>")
    return root


def with_vfs(xml: str, moved: Mapping[str, str]) -> tuple[str, list[str]]:
    """The definition with each VF's PCI address replaced, and those addresses that it did not name at all.

    `moved` is from the source's PCI address to the destination's (``0000:01:10.0``). Only host devices are
    touched, in `<interface type='hostdev'>` and `<hostdev>` alike: where a device sits in the guest stays as it is.
    Problem ``xml-invalid``; ValueError for an address that is none.
    """
    root = parse(xml)
    missing = set(moved)
    for element in _host_addresses(root):
        old = pci_address(element)
        if old is not None and old in moved:
            missing.discard(old)
            element.attrib.update(pci_attributes(moved[old]))
    return ET.tostring(root, encoding="unicode"), sorted(missing)


def pci_attributes(address: str) -> dict[str, str]:
    """``0000:01:10.0`` as libvirt's attributes. ValueError for what is no address."""
    match = PCI_ADDRESS.fullmatch(address)
    if match is None:
        raise ValueError(f"not a PCI address: {address!r}")
    return {name: f"0x{value}" for name, value in zip(PCI_ATTRIBUTES, match.groups(), strict=True)}


def pci_address(element: ET.Element) -> str | None:
    """libvirt's `<address>` as ``0000:01:10.0``; None when it is not of a PCI device."""
    if element.get("bus") is None or element.get("slot") is None:
        return None
    domain, bus, slot, function = (int(element.get(name, "0"), 0) for name in PCI_ATTRIBUTES)
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def attached(xml: str, attachments: Mapping[str, Attachment]) -> tuple[str, list[str]]:
    """The definition with its virtio NICs on other things of a host, and the MACs that it has not.

    `attachments` is by MAC, in lower case. Where several NICs share one, as the slaves of a bond do, it is the one of
    the same kind. Devices get new names, where libvirt has named them and they become others. Problem ``xml-invalid``.
    """
    root = parse(xml)
    missing = []
    for mac, wanted in attachments.items():
        own = [nic for nic in root.iterfind("devices/interface") if _is_virtual(nic) and mac_of(nic) == mac]
        same = [nic for nic in own if (nic.get("type") == "bridge") == wanted.bridged]
        for nic in same or own:
            _put(nic, wanted)
        if not own:
            missing.append(mac)
    return ET.tostring(root, encoding="unicode"), sorted(missing)


def attach(nic: ET.Element, wanted: Attachment) -> None:
    """Says of an `<interface>` that has no source what it is on."""
    nic.set("type", "bridge" if wanted.bridged else "direct")
    source = ET.SubElement(nic, "source")
    if wanted.bridged:
        source.set("bridge", wanted.device)
    else:
        source.attrib.update(dev=wanted.device, mode="bridge")
        # Else the macvtap drops multicast that the guest wants, such as its neighbours' solicitations.
        nic.set("trustGuestRxFilters", "yes")
    _fit_port(nic, wanted.kind)


def _put(nic: ET.Element, wanted: Attachment) -> None:
    source, target, was_bridged = nic.find("source"), nic.find("target"), nic.get("type") == "bridge"
    if source is not None and was_bridged == wanted.bridged:
        for name in OF_NETWORK:
            source.attrib.pop(name, None)
        source.set("bridge" if wanted.bridged else "dev", wanted.device)
        if wanted.bridged:
            _fit_port(nic, wanted.kind)
    else:
        for element in (source, nic.find("virtualport")):
            if element is not None:
                nic.remove(element)
        attach(nic, wanted)
    if not (was_bridged and wanted.bridged) and target is not None and target.get("dev", "").startswith(GENERATED):
        nic.remove(target)


def _fit_port(nic: ET.Element, kind: AttachmentKind) -> None:
    """A port that stays one of Open vSwitch keeps its interface ID, by which whoever controls the switch knows it."""
    port = nic.find("virtualport")
    if kind is AttachmentKind.OPENVSWITCH and port is None:
        ET.SubElement(nic, "virtualport", type=kind.value)
    elif kind is AttachmentKind.BRIDGE and port is not None:
        nic.remove(port)


def _host_addresses(domain: ET.Element) -> Iterator[ET.Element]:
    yield from domain.iterfind("devices/interface[@type='hostdev']/source/address")
    yield from domain.iterfind("devices/hostdev[@type='pci']/source/address")


def _is_virtual(nic: ET.Element) -> bool:
    return nic.get("type") in ("bridge", "direct")


def shares_memory(xml: str) -> bool:
    """Whether others can map all of a guest's memory, as vhost-user needs it. Problem ``xml-invalid``."""
    root = parse(xml)
    backing = root.find("memoryBacking")
    access = None if backing is None else backing.find("access")
    usual = access is not None and access.get("mode") == "shared"
    cells = [cell.get("memAccess") for cell in root.iterfind("cpu/numa/cell")]
    shared = all(said == "shared" or (said is None and usual) for said in cells or [None])
    source = None if backing is None else backing.find("source")
    in_a_file = source is not None and source.get("type") in ("memfd", "file")
    return shared and (in_a_file or (backing is not None and backing.find("hugepages") is not None))


def kept_from_balloon(xml: str) -> str | None:
    """Why a running guest's balloon gives nothing back to the host that the guest is sure to get again; None where it
    does. Problem ``xml-invalid``."""
    root = parse(xml)
    balloon = root.find("devices/memballoon")
    if balloon is None or balloon.get("model") == "none":
        return "it has no balloon"
    if root.find("memoryBacking/hugepages") is not None:
        return "its memory is of huge pages, of which another guest could have them before it does again"
    if root.find("memoryBacking/locked") is not None:
        return "its memory is locked"
    return None


def mac_of(nic: ET.Element) -> str:
    """An `<interface>`'s MAC in lower case; empty where it says none."""
    address = nic.find("mac")
    return "" if address is None else address.get("address", "").lower()


def _invalid(why: str) -> Problem:
    return Problem("xml-invalid", f"This is not a guest's definition: {why}", "Look with: virsh dumpxml GUEST")
