"""The guest's devices: which of them do not migrate, whether its VFs come out, and whether one more goes in."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from xml.etree import ElementTree as ET

from vferry.model.definition import parse, pci_address
from vferry.plan.facts import Finding, error, warning
from vferry.plan.plan import GuestSide, VfMove

Test = Callable[[ET.Element], bool]

_PORTS = ("pcie-root-port", "pcie-switch-downstream-port")
ROOT_BUS = 0


def about(live: str, going: Collection[str], moves: Sequence[VfMove]) -> Iterator[Finding]:
    """What a running guest's definition says against moving it.

    `going`: PCI addresses and UUIDs of the devices of its host that the plan moves; `moves`: what it does with the
    NICs, in its order.
    """
    domain = parse(live)
    yield from _stuck(domain, going)
    if "q35" not in attribute(domain, "os/type", "machine"):
        return  # the slots of a conventional PCI bus all take and give
    plugged = [move for move in moves if move.plugged]
    yield from _fixed(domain, {move.source.address for move in plugged})
    yield from _no_port(domain, plugged)


def free_ports(domain: ET.Element) -> int:
    """How many PCIe ports of a running guest could take a device."""
    return len(_ports(domain) - {bus_of(device) for device in domain.iterfind("devices/*")})


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
    return attribute(filesystem, "driver", "type") != "virtiofs"


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
    for device in _passed_through(domain):
        if _is_moved(device, vfs) and bus_of(device) == ROOT_BUS:
            yield error(
                "vf-not-unpluggable",
                "The guest's VF sits on its root bus, from where it cannot be unplugged",
                "Remove the VF's <address type='pci' bus='0x00'…/> from its definition and start it anew",
            )


def _no_port(domain: ET.Element, moves: Sequence[VfMove]) -> Iterator[Finding]:
    """Follows the free ports through the steps, NIC by NIC: the guest takes them along from one host to the other."""
    used = Counter(bus_of(device) for device in domain.iterfind("devices/*"))
    free = free_ports(domain)
    for move in moves:
        if move.plugs_standby:
            free -= 1
            if free < 0:
                yield _refuse_port("standby NIC", move)
                return
        free += _frees_port(domain, move, used)
    for move in moves:
        free -= 1
        if free < 0:
            yield _refuse_port("VF", move)
            return
        free += move.plugs_standby


def _refuse_port(what: str, move: VfMove) -> Finding:
    instead = ""
    if move.plugs_standby:
        bonded = move.guest_side is GuestSide.TEMPORARY_BOND
        instead = ", or do without --temporary-bond" if bonded else ", or use --network detach"
    return error(
        "no-free-port",
        f"The guest has no free PCIe root port to plug the {what} of {move.mac} into",
        f"Add <controller type='pci' model='pcie-root-port'/> to its definition and start it anew{instead}",
    )


def _frees_port(domain: ET.Element, move: VfMove, used: Counter[int | None]) -> bool:
    """Whether a VF leaves a port behind: not from a conventional bridge, nor one that it shares."""
    buses = (bus_of(device) for device in _passed_through(domain) if _is_moved(device, {move.source.address}))
    return any(bus in _ports(domain) and used[bus] == 1 for bus in buses)


def _passed_through(domain: ET.Element) -> Iterator[ET.Element]:
    yield from domain.iterfind("devices/hostdev")
    yield from domain.iterfind("devices/interface[@type='hostdev']")


def _ports(domain: ET.Element) -> set[int]:
    return {
        int(controller.get("index", "0"))
        for model in _PORTS
        for controller in domain.iterfind(f"devices/controller[@type='pci'][@model='{model}']")
    }


def _is_moved(device: ET.Element, names: Collection[str]) -> bool:
    source = device.find("source/address")
    if source is None:
        return False
    uuid = source.get("uuid")
    return (uuid.lower() if uuid else pci_address(source)) in names


def bus_of(device: ET.Element) -> int | None:
    """The bus that a device is on in the guest; None for one that is not on PCI."""
    address = device.find("address[@type='pci']")
    return None if address is None else int(address.get("bus", "0"), 16)


def attribute(element: ET.Element, path: str, name: str) -> str:
    """An attribute of what is below an element; empty where it is not there."""
    found = element.find(path)
    return "" if found is None else found.get(name, "")
