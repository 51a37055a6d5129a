"""Rewriting a guest's libvirt definition for its destination. Pure."""

import re
from collections.abc import Mapping
from xml.etree import ElementTree as ET

from vferry.model.definition import attached
from vferry.model.host import Attachment

_ADDRESS = re.compile(r"([0-9a-f]{4}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")


def rewritten(xml: str, passed: Mapping[str, str], attachments: Mapping[str, Attachment]) -> tuple[str, list[str]]:
    """The definition for the destination, and what it did not name: VFs passed through, and MACs of virtio NICs.

    `passed` as for `with_vfs`, `attachments` as for `attached`.
    """
    xml, missing = with_vfs(xml, passed)
    xml, also = attached(xml, attachments)
    return xml, missing + also


def with_vfs(xml: str, moved: Mapping[str, str]) -> tuple[str, list[str]]:
    """The definition with each VF's PCI address replaced, and those addresses that it did not name at all.

    `moved` is from the source's PCI address to the destination's (``0000:01:10.0``). Only host devices are
    touched: where a device sits in the guest stays as it is. ValueError for an address that is none.
    """
    root = ET.fromstring(xml)  # noqa: S314 - libvirt's own XML
    missing = set(moved)
    for source in root.findall("./devices/interface[@type='hostdev']/source") + root.findall(
        "./devices/hostdev/source"
    ):
        element = source.find("address")
        if element is None:
            continue
        old = address_of(element)
        if old in moved:
            missing.discard(old)
            _set_address(element, moved[old])
    return ET.tostring(root, encoding="unicode"), sorted(missing)


def pools(xml: str) -> dict[str, str]:
    """The libvirt networks from which NICs get what they are on when the guest starts, by MAC."""
    root = ET.fromstring(xml)  # noqa: S314 - libvirt's own XML
    found = {}
    for interface in root.iterfind("./devices/interface[@type='network']"):
        mac, source = interface.find("mac"), interface.find("source")
        if mac is not None and source is not None:
            found[mac.get("address", "").lower()] = source.get("network", "")
    return found


def address_of(element: ET.Element) -> str:
    """A libvirt `<address domain='0x0000' bus=… slot=… function=…/>` as ``0000:01:10.0``."""
    domain, bus, slot, function = (int(element.get(name, "0"), 16) for name in ("domain", "bus", "slot", "function"))
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def _set_address(element: ET.Element, address: str) -> None:
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ValueError(f"not a PCI address: {address!r}")
    for name, value in zip(("domain", "bus", "slot", "function"), match.groups(), strict=True):
        element.set(name, f"0x{value}")
