"""What of a host a guest is bound to: huge pages, processors, NUMA nodes, an emulated TPM, locked memory."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from vferry.host.cpus import read_cpus
from vferry.host.domain_xml import pinned, read_bytes
from vferry.host.sysfs import read_file

PIDS = ("run/virtqemud.pid", "run/libvirtd.pid")
CAP_SYS_RESOURCE = 24
LOCKED_MARGIN = 1 << 30
"""What QEMU may lock beyond the guest's memory: libvirt's own allowance."""


def missing(root: Path, domain: ET.Element) -> Iterator[str]:
    """What this host lacks of it, each in words."""
    memory = read_bytes(domain.find("memory"))
    yield from _huge_pages(root, domain, memory)
    yield from _processors(root, domain)
    yield from _nodes(root, domain)
    yield from _tpm(root, domain)
    yield from _locked(root, domain, memory)


def _huge_pages(root: Path, domain: ET.Element, memory: int) -> Iterator[str]:
    backing = domain.find("memoryBacking/hugepages")
    if backing is None:
        return
    pages = [read_bytes(page, "size") for page in backing.iterfind("page")] or [_usual_page(root)]
    free = sum(size * _free_pages(root, size) for size in set(pages))
    if free < memory:
        sizes = ", ".join(f"{size >> 10} KiB" for size in sorted(set(pages)))
        yield f"the guest has {memory >> 20} MiB in huge pages of {sizes}, of which {free >> 20} MiB are free here"


def _usual_page(root: Path) -> int:
    lines = (line.split() for line in read_file(root / "proc/meminfo").splitlines())
    return next((int(words[1]) << 10 for words in lines if words[0] == "Hugepagesize:"), 2 << 20)


def _free_pages(root: Path, size: int) -> int:
    return int(read_file(root / f"sys/kernel/mm/hugepages/hugepages-{size >> 10}kB/free_hugepages") or 0)


def _processors(root: Path, domain: ET.Element) -> Iterator[str]:
    lacking = {*pinned(domain)}.difference(read_cpus(read_file(root / "sys/devices/system/cpu/online")))
    if lacking:
        yield f"the guest is pinned to processors that are not online here: {_shown(lacking)}"


def _nodes(root: Path, domain: ET.Element) -> Iterator[str]:
    sets = [element.get("nodeset", "") for element in domain.iterfind("numatune/*")]
    # A kernel without NUMA has but one.
    online = read_cpus(read_file(root / "sys/devices/system/node/online") or "0")
    lacking = set().union(*map(read_cpus, sets)).difference(online)
    if lacking:
        yield f"the guest's memory is bound to NUMA nodes that are not here: {_shown(lacking)}"


def _tpm(root: Path, domain: ET.Element) -> Iterator[str]:
    emulated = domain.find("devices/tpm/backend[@type='emulator']") is not None
    if emulated and not (root / "usr/bin/swtpm").exists():
        yield "the guest has an emulated TPM, and swtpm is not on this host"


def _locked(root: Path, domain: ET.Element, memory: int) -> Iterator[str]:
    devices = domain.find("devices")
    passed = devices is not None and any(
        devices.find(path) is not None for path in ("interface[@type='hostdev']", "hostdev[@type='pci']")
    )
    limit = locked_limit(root) if passed else None
    if limit is not None and limit < memory + LOCKED_MARGIN:
        yield f"libvirt may lock {limit >> 20} MiB here, and a guest with a VF has all its memory locked"


def locked_limit(root: Path) -> int | None:
    """Bytes that libvirt's QEMU may lock; None where libvirt may raise that itself, as it does, or is not seen."""
    pid = next((pid for file in PIDS if (pid := read_file(root / file)).isdecimal()), None)
    if pid is None:
        return None
    status = dict(line.split(":", 1) for line in read_file(root / f"proc/{pid}/status").splitlines() if ":" in line)
    if int(status.get("CapEff", "0"), 16) >> CAP_SYS_RESOURCE & 1:
        return None
    for line in read_file(root / f"proc/{pid}/limits").splitlines():
        if line.startswith("Max locked memory"):
            hard = line.split()[4]
            return int(hard) if hard.isdecimal() else None
    return None


def _shown(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
