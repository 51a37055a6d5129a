"""What both the planner and an agent change in a guest's libvirt definition. Pure: text in, text out."""

from collections.abc import Mapping
from xml.etree import ElementTree as ET

from vferry.model.host import Attachment, AttachmentKind

GENERATED = ("macvtap", "macvlan", "vnet")
"""How the devices are called that libvirt names itself."""


def attached(xml: str, attachments: Mapping[str, Attachment]) -> tuple[str, list[str]]:
    """The definition with its virtio NICs on other things of a host, and the MACs that it has not.

    `attachments` is by MAC, in lower case. Where several NICs share one, as the slaves of a bond do, it is the one of
    the same kind. Devices get new names, where libvirt has named them and they become others.
    """
    root = ET.fromstring(xml)  # noqa: S314 - libvirt's own XML
    missing = []
    for mac, wanted in attachments.items():
        own = [nic for nic in root.iterfind("devices/interface") if _is_virtual(nic) and _mac(nic) == mac]
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


def _is_virtual(nic: ET.Element) -> bool:
    return nic.get("type") in ("bridge", "direct")


def _mac(nic: ET.Element) -> str:
    address = nic.find("mac")
    return "" if address is None else address.get("address", "").lower()
