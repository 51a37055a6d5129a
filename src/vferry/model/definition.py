"""What both the planner and an agent change in a guest's libvirt definition. Pure: text in, text out."""

from collections.abc import Mapping
from xml.etree import ElementTree as ET

GENERATED = ("macvtap", "macvlan")
"""How the devices are called that libvirt names itself."""


def on_interfaces(xml: str, interfaces: Mapping[str, str]) -> tuple[str, list[str]]:
    """The definition with its NICs on a macvtap put on other interfaces of a host, and the MACs that it has not.

    `interfaces` is by MAC, in lower case. The macvtaps themselves get new names, where libvirt has named them.
    """
    root = ET.fromstring(xml)  # noqa: S314 - libvirt's own XML
    missing = set(interfaces)
    for nic in root.iterfind("devices/interface[@type='direct']"):
        address, source, target = nic.find("mac"), nic.find("source"), nic.find("target")
        mac = "" if address is None else address.get("address", "").lower()
        if source is None or mac not in interfaces:
            continue
        missing.discard(mac)
        source.set("dev", interfaces[mac])
        if target is not None and target.get("dev", "").startswith(GENERATED):
            nic.remove(target)
    return ET.tostring(root, encoding="unicode"), sorted(missing)
