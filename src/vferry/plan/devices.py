"""The guest's devices: which of them do not migrate, whether its VFs come out, and whether one more goes in."""

from collections.abc import Callable, Collection, Iterator
from xml.etree import ElementTree as ET

from vferry.model.definition import parse, pci_address
from vferry.plan.facts import Finding, error, warning

Test = Callable[[ET.Element], bool]

_PORTS = ("pcie-root-port", "pcie-switch-downstream-port")
_ROOT_BUS = 0


def about(live: str, going: Collection[str], unplugged: Collection[str], *, plugs: bool) -> Iterator[Finding]:
    """What a running guest's definition says against moving it.

    `going`: PCI addresses and UUIDs of the devices of its host that the plan moves; `unplugged`: those of them that it
    takes away meanwhile. `plugs`: whether a NIC is plugged while they are still there.
    """
    domain = parse(live)
    yield from _stuck(domain, going)
    if "q35" not in _attribute(domain, "os/type", "machine"):
        return  # the slots of a conventional PCI bus all take and give
    yield from _fixed(domain, unplugged)
    if plugs and not _free_ports(domain):
        yield error(
            "no-free-port",
            "The guest has no free PCIe root port to plug the standby NIC into",
            "Add <controller type='pci' model='pcie-root-port'/> to its definition and start it anew, "
            "or use --network detach",
        )


def _stuck(domain: ET.Element, going: Collection[str]) -> Iterator[Finding]:
    for device in domain.iterfind("devices/hostdev"):
        if not _is_moved(device, going):
            kind = device.get("type", "pci")
            yield _refusal(f"a device of its host ({kind})", _TAKE_AWAY)
    for path, test, what, remedy in _KINDS:
        if any(test(element) for element in domain.iterfind(path)):
            yield _refusal(what, remedy)
    if domain.find("devices/filesystem/driver[@type='virtiofs']") is not None:
        yield warning(
            "virtiofs",
            "The guest has a virtiofs directory: both hosts must share it, with QEMU 8.2 and virtiofsd 1.11 or later",
        )


def _refusal(what: str, remedy: str) -> Finding:
    return error("does-not-migrate", f"The guest has {what}, which does not migrate", remedy)


def _always(_element: ET.Element) -> bool:
    return True


def _no_virtiofs(filesystem: ET.Element) -> bool:
    return _attribute(filesystem, "driver", "type") != "virtiofs"


def _is_peer(shmem: ET.Element) -> bool:
    return shmem.get("role", "peer") != "master"


_TAKE_AWAY = "Take it away for the migration: virsh detach-device"
_KINDS: tuple[tuple[str, Test, str, str], ...] = (
    ("devices/filesystem", _no_virtiofs, "a 9p directory of its host", "Use virtiofs, or a network file system in it"),
    ("devices/shmem", _is_peer, "shared memory of its host", _TAKE_AWAY),
    ("devices/tpm/backend[@type='passthrough']", _always, "its host's TPM", "Use <backend type='emulator'>"),
    ("devices/disk[@type='nvme']", _always, "an NVMe device of its host", "Use a disk that both hosts reach"),
    ("launchSecurity", _always, "memory encrypted for its host", "Start it anew without <launchSecurity>"),
)


def _fixed(domain: ET.Element, vfs: Collection[str]) -> Iterator[Finding]:
    """VFs on the root bus, which QEMU does not unplug (its docs/pcie.txt)."""
    for device in (*domain.iterfind("devices/hostdev"), *domain.iterfind("devices/interface[@type='hostdev']")):
        if _is_moved(device, vfs) and _bus(device) == _ROOT_BUS:
            yield error(
                "vf-not-unpluggable",
                "The guest's VF sits on its root bus, from where it cannot be unplugged",
                "Remove the VF's <address type='pci' bus='0x00'…/> from its definition and start it anew",
            )


def _free_ports(domain: ET.Element) -> set[int]:
    ports = {
        int(controller.get("index", "0"))
        for model in _PORTS
        for controller in domain.iterfind(f"devices/controller[@type='pci'][@model='{model}']")
    }
    return ports - {_bus(device) for device in domain.iterfind("devices/*")}


def _is_moved(device: ET.Element, names: Collection[str]) -> bool:
    source = device.find("source/address")
    if source is None:
        return False
    uuid = source.get("uuid")
    return (uuid.lower() if uuid else pci_address(source)) in names


def _bus(device: ET.Element) -> int | None:
    """The bus that a device is on in the guest; None for one that is not on PCI."""
    address = device.find("address[@type='pci']")
    return None if address is None else int(address.get("bus", "0"), 16)


def _attribute(element: ET.Element, path: str, name: str) -> str:
    found = element.find(path)
    return "" if found is None else found.get(name, "")
