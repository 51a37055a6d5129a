"""Whether this host can take a guest's platform in: CPU, machine type, emulator, files, bridges, resources."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vferry.host import resources
from vferry.host.api import CheckFit, Fit
from vferry.host.domain_xml import DomainXml, NicXml, read_domain
from vferry.host.hypervisor import Hypervisor
from vferry.model.definition import parse

# Modes that take the host's CPU as it is. Their live XML does not say which CPU that was, so nothing can be compared
# here; planning compares the hosts' CPU models.
HOST_MODES = ("host-passthrough", "maximum")
INCOMPATIBLE = 0


def check_fit(hypervisor: Hypervisor, root: Path, wanted: CheckFit) -> Fit:
    """Asks libvirt and the file system. Problem ``xml-invalid``."""
    live_xml, persistent_xml = wanted.live_xml, wanted.persistent_xml
    domain = read_domain(live_xml)
    reasons = [
        *_files(root, domain),
        *_networks(hypervisor, root, [nic for nic in domain.nics if nic.mac not in wanted.rewired]),
        *_pools(hypervisor, domain, persistent_xml),
        *resources.missing(root, parse(live_xml)),
    ]
    if domain.emulator and not _readable(root, domain.emulator):
        # Without it libvirt cannot say anything of the machine either.
        return Fit(reasons=(f"the emulator {domain.emulator} is not on this host", *reasons))
    machine = _machine(hypervisor, domain)
    if machine:
        return Fit(reasons=(machine, *reasons))
    return Fit(reasons=(*_cpu(hypervisor, domain), *reasons))


def _files(root: Path, domain: DomainXml) -> Iterator[str]:
    for path in domain.disks:
        if not _readable(root, path):
            yield f"the disk {path} is not on this host, or not readable"
    for path in domain.paths:
        if not _readable(root, path):
            yield f"the file {path}, from which the guest boots, is not on this host"


def _networks(hypervisor: Hypervisor, root: Path, nics: Iterable[NicXml]) -> Iterator[str]:
    for nic in nics:
        if nic.type in ("bridge", "direct") and nic.source:
            if not (root / "sys/class/net" / nic.source).exists():
                what = "bridge" if nic.type == "bridge" else "interface"
                yield f"the {what} {nic.source} of NIC {nic.mac} is not on this host"
        elif nic.type == "network" and nic.source and not _network_active(hypervisor, nic.source):
            yield f"the libvirt network {nic.source} of NIC {nic.mac} is not active on this host"


def _pools(hypervisor: Hypervisor, live: DomainXml, persistent_xml: str | None) -> Iterator[str]:
    """A NIC that is from a pool shows what it has got of it while the guest runs, and the pool only in between."""
    if persistent_xml is None:
        return
    seen = {nic.mac for nic in live.nics if nic.type == "network"}
    for nic in read_domain(persistent_xml).nics:
        pooled = nic.type == "network" and nic.source and nic.mac not in seen
        if pooled and not _network_active(hypervisor, nic.source or ""):
            yield f"the libvirt network {nic.source}, from which NIC {nic.mac} comes, is not active on this host"


def _network_active(hypervisor: Hypervisor, name: str) -> bool:
    try:
        return bool(hypervisor.connection().networkLookupByName(name).isActive())
    except hypervisor.libvirt.libvirtError:
        return False


def _machine(hypervisor: Hypervisor, domain: DomainXml) -> str | None:
    connection = hypervisor.connection()
    try:
        connection.getDomainCapabilities(domain.emulator, domain.arch, domain.machine or None, domain.type, 0)
    except hypervisor.libvirt.libvirtError as error:
        return f"machine type {domain.machine} ({domain.type}) cannot run here: {_message(error)}"
    return None


def _cpu(hypervisor: Hypervisor, domain: DomainXml) -> Iterator[str]:
    if domain.cpu is None or domain.cpu_mode in HOST_MODES:
        return
    libvirt = hypervisor.libvirt
    arguments = (domain.emulator, domain.arch, domain.machine or None, domain.type, domain.cpu)
    try:
        verdict = hypervisor.connection().compareHypervisorCPU(
            *arguments, libvirt.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE
        )
    except libvirt.libvirtError as error:
        yield f"this host's CPU lacks what the guest uses: {_message(error)}"
        return
    if verdict == INCOMPATIBLE:
        yield "this host's CPU lacks what the guest uses"


def _readable(root: Path, path: str) -> bool:
    return os.access(root / path.lstrip("/"), os.R_OK)


def _message(error: Any) -> str:
    return str(error.get_error_message() or error).strip().rstrip(".")
