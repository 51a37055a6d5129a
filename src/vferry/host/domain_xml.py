"""A guest's libvirt XML as values, and the few changes that vferry makes to it. Pure: text in, text out."""

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from msgspec import Struct

from vferry.host.api import PlugRelayed, PlugStandby, PlugVf
from vferry.host.cpus import read_cpus
from vferry.model.definition import NAMESPACE, attach, parse, pci_address, pci_attributes

UNITS = {
    "b": 1,
    "bytes": 1,
    "kb": 10**3,
    "k": 1 << 10,
    "kib": 1 << 10,
    "mb": 10**6,
    "m": 1 << 20,
    "mib": 1 << 20,
    "gb": 10**9,
    "g": 1 << 30,
    "gib": 1 << 30,
    "tb": 10**12,
    "t": 1 << 40,
    "tib": 1 << 40,
}

SOURCES = {"bridge": "bridge", "network": "network", "vhostuser": "path"}
"""By which attribute of its `<source>` a NIC of a type says what it is on, if not by ``dev``. While the guest runs,
there are others: the network that a bridge or a device is of, and the bridge that libvirt has made for a network."""


class NicXml(Struct, frozen=True, kw_only=True):
    """A NIC, or a plain host device that may be one. `address` is the PCI address on the host of what it is.

    `type` is what it is on: while the guest runs, a NIC of a libvirt network that forwards by a bridge, by macvtaps or
    by VFs has the type ``bridge``, ``direct`` or ``hostdev``. `mac` is None for a plain `<hostdev>`, which does not say
    it. `source` names the bridge, network or device, `target` the NIC's own device on the host, while the guest runs.
    """

    type: str
    model: str
    mac: str | None = None
    alias: str = ""
    address: str | None = None
    source: str | None = None
    target: str | None = None
    vlan: int = 0
    teaming: str | None = None
    teamed_with: str | None = None
    acpi_index: int | None = None

    @property
    def interface(self) -> str | None:
        """The interface of the host that it is on by a macvtap."""
        return self.source if self.type == "direct" else None

    @property
    def socket(self) -> str | None:
        """The socket of the host by which it is on vhost-user."""
        return self.source if self.type == "vhostuser" else None


class DeviceXml(Struct, frozen=True, kw_only=True):
    """A `<hostdev>` that is not on PCI; `uuid` is a mediated device's."""

    type: str
    uuid: str | None = None
    alias: str = ""


class DomainXml(Struct, frozen=True, kw_only=True):
    """What vferry reads of a `<domain>`. `memory` in bytes; `paths` are local files that QEMU opens at its start."""

    name: str
    uuid: str
    type: str = "kvm"
    arch: str = "x86_64"
    machine: str = ""
    emulator: str | None = None
    memory: int = 0
    vcpus: int = 1
    pinned: tuple[int, ...] = ()
    pins: tuple[tuple[int, ...], ...] = ()
    cpu: str | None = None
    cpu_mode: str | None = None
    nics: tuple[NicXml, ...] = ()
    devices: tuple[DeviceXml, ...] = ()
    disks: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    address: str | None = None
    agent_connected: bool = False


def read_domain(xml: str) -> DomainXml:
    """Reads a `<domain>`. Problem ``xml-invalid``."""
    domain = parse(xml)
    cpu = domain.find("cpu")
    metadata = domain.find(f"metadata/{{{NAMESPACE}}}guest")
    disks = tuple(_disk_paths(domain))
    return DomainXml(
        name=domain.findtext("name", ""),
        uuid=domain.findtext("uuid", ""),
        type=domain.get("type", "kvm"),
        arch=_attribute(domain, "os/type", "arch") or "x86_64",
        machine=_attribute(domain, "os/type", "machine") or "",
        emulator=domain.findtext("devices/emulator"),
        memory=read_bytes(domain.find("memory")),
        vcpus=int(domain.findtext("vcpu", "1")),
        pinned=pinned(domain),
        pins=_pins(domain),
        cpu=None if cpu is None else ET.tostring(cpu, encoding="unicode").strip(),
        cpu_mode=None if cpu is None else cpu.get("mode", "custom"),
        nics=tuple(_nics(domain)),
        devices=tuple(_devices(domain)),
        disks=disks,
        paths=tuple(_boot_paths(domain)),
        address=None if metadata is None else metadata.get("address"),
        agent_connected=_agent_connected(domain),
    )


def standby_xml(wanted: PlugStandby) -> str:
    """A virtio NIC, with `PlugStandby.vhost` on vhost-net."""
    interface = ET.Element("interface")
    ET.SubElement(interface, "mac", address=wanted.mac)
    attach(interface, wanted.on)
    if wanted.vlan:
        ET.SubElement(ET.SubElement(interface, "vlan"), "tag", id=str(wanted.vlan))
    ET.SubElement(interface, "model", type="virtio")
    # On QEMU's own loop instead of vhost-net, device_add and device_del would stall it.
    # The longest queue that QEMU has: frames wait there while the guest is busy with a device that comes or goes.
    driver = ET.SubElement(interface, "driver", name="vhost" if wanted.vhost else "qemu", rx_queue_size="1024")
    if wanted.queues > 1:
        driver.set("queues", str(wanted.queues))
    if wanted.mtu is not None:
        ET.SubElement(interface, "mtu", size=str(wanted.mtu))
    ET.SubElement(interface, "alias", name=wanted.alias)
    return ET.tostring(interface, encoding="unicode")


def relayed_xml(wanted: PlugRelayed, socket: str) -> str:
    """A virtio NIC by vhost-user on a socket that QEMU serves."""
    interface = ET.Element("interface", type="vhostuser")
    ET.SubElement(interface, "mac", address=wanted.mac)
    ET.SubElement(interface, "source", type="unix", path=socket, mode="server")
    ET.SubElement(interface, "model", type="virtio")
    if wanted.queues > 1:
        ET.SubElement(interface, "driver", queues=str(wanted.queues))
    ET.SubElement(interface, "alias", name=wanted.alias)
    return ET.tostring(interface, encoding="unicode")


def vf_xml(wanted: PlugVf) -> str:
    """A VF as a plain host device: as an `<interface>` libvirt would move the MAC filter when it attaches it.

    Before libvirt 7.1, only an `<interface>` can be teamed.
    """
    hostdev = ET.Element("hostdev", mode="subsystem", type="pci", managed="yes")
    source = ET.SubElement(hostdev, "source")
    ET.SubElement(source, "address", pci_attributes(wanted.address))
    if wanted.teamed_with is not None:
        ET.SubElement(hostdev, "teaming", type="transient", persistent=wanted.teamed_with)
    ET.SubElement(hostdev, "alias", name=wanted.alias)
    if wanted.acpi_index is not None:
        ET.SubElement(hostdev, "acpi", index=str(wanted.acpi_index))
    return ET.tostring(hostdev, encoding="unicode")


def has_alias(xml: str, alias: str) -> bool:
    """Whether a device of the definition has this alias."""
    return any(element.get("name") == alias for element in parse(xml).iterfind("devices/*/alias"))


def _nics(domain: ET.Element) -> Iterator[NicXml]:
    for interface in domain.iterfind("devices/interface"):
        yield _interface(interface)
    for hostdev in domain.iterfind("devices/hostdev[@type='pci']"):
        source = hostdev.find("source/address")
        yield NicXml(
            type="hostdev",
            model="hostdev",
            alias=_attribute(hostdev, "alias", "name") or "",
            address=None if source is None else pci_address(source),
            teaming=_attribute(hostdev, "teaming", "type"),
            teamed_with=_attribute(hostdev, "teaming", "persistent"),
            acpi_index=_acpi_index(hostdev),
        )


def _devices(domain: ET.Element) -> Iterator[DeviceXml]:
    for hostdev in domain.iterfind("devices/hostdev"):
        if hostdev.get("type") != "pci":
            uuid = _attribute(hostdev, "source/address", "uuid")
            kind, alias = hostdev.get("type", ""), _attribute(hostdev, "alias", "name") or ""
            yield DeviceXml(type=kind, uuid=uuid.lower() if uuid else None, alias=alias)


def _interface(interface: ET.Element) -> NicXml:
    source = interface.find("source")
    host_address = interface.find("source/address")
    hostdev = interface.get("type") == "hostdev"
    mac = _attribute(interface, "mac", "address")
    return NicXml(
        type=interface.get("type", ""),
        model="hostdev" if hostdev else _attribute(interface, "model", "type") or "unknown",
        mac=mac.lower() if mac else None,
        alias=_attribute(interface, "alias", "name") or "",
        address=pci_address(host_address) if hostdev and host_address is not None else None,
        source=None if source is None else source.get(SOURCES.get(interface.get("type", ""), "dev")),
        target=_attribute(interface, "target", "dev"),
        vlan=int(_attribute(interface, "vlan/tag", "id") or 0),
        teaming=_attribute(interface, "teaming", "type"),
        teamed_with=_attribute(interface, "teaming", "persistent"),
        acpi_index=_acpi_index(interface),
    )


def _acpi_index(device: ET.Element) -> int | None:
    said = _attribute(device, "acpi", "index")
    return int(said) if said else None


def _disk_paths(domain: ET.Element) -> Iterator[str]:
    for source in domain.iterfind("devices/disk/source"):
        path = source.get("file") or source.get("dev") or source.get("dir")
        if path:
            yield path


def _boot_paths(domain: ET.Element) -> Iterator[str]:
    for tag in ("kernel", "initrd", "dtb", "loader"):
        path = domain.findtext(f"os/{tag}")
        if path and path.strip():
            yield path.strip()


def _agent_connected(domain: ET.Element) -> bool:
    return any(
        target.get("name") == "org.qemu.guest_agent.0" and target.get("state") == "connected"
        for target in domain.iterfind("devices/channel/target")
    )


def read_bytes(element: ET.Element | None, attribute: str | None = None) -> int:
    """A size, from an element's text or from its attribute, in its unit; KiB where it has none."""
    text = None if element is None else (element.get(attribute) if attribute else element.text)
    if element is None or not text:
        return 0
    return int(text) * UNITS.get(element.get("unit", "KiB").lower(), 1 << 10)


def _attribute(element: ET.Element, path: str, key: str) -> str | None:
    found = element.find(path)
    return None if found is None else found.get(key)


def pinned(domain: ET.Element) -> tuple[int, ...]:
    """The host's CPUs that its virtual ones, and QEMU's other threads, are pinned to."""
    said = [_attribute(domain, "vcpu", "cpuset"), *(pin.get("cpuset") for pin in domain.findall("cputune/*"))]
    return tuple(sorted({cpu for text in said for cpu in read_cpus(text or "")}))


def _pins(domain: ET.Element) -> tuple[tuple[int, ...], ...]:
    """Those of each thread: who has none of its own has the one for all (`<vcpu cpuset>`)."""
    own = [pin.get("cpuset") for pin in domain.findall("cputune/*[@cpuset]")]
    pinned_vcpus = {pin.get("vcpu") for pin in domain.findall("cputune/vcpupin[@cpuset]")}
    count = int(domain.findtext("vcpu", "1"))
    if len(pinned_vcpus) < count or domain.find("cputune/emulatorpin[@cpuset]") is None:
        own.append(_attribute(domain, "vcpu", "cpuset"))
    return tuple(sorted({cpus for text in own if (cpus := read_cpus(text or ""))}))
