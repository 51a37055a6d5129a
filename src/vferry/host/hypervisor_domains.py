"""A guest's definition and state: read, defined, undefined, resumed, and its incoming remains destroyed."""

from pathlib import Path
from typing import Any

from vferry.host.api import Definition, Done
from vferry.host.domain_xml import read_domain
from vferry.host.hypervisor import Hypervisor
from vferry.host.hypervisor_guests import PAUSE_REASONS, PAUSED
from vferry.model.problem import Exit, Problem

RUNNING = (1, 2, 4, 6)
JOB_RUNNING = (1, 2)
"""Numbers of libvirt's ABI: virDomainJobType."""
INCOMING = ("migration", "starting up")
UNDEFINE_FLAGS = ("VIR_DOMAIN_UNDEFINE_KEEP_NVRAM", "VIR_DOMAIN_UNDEFINE_KEEP_TPM", "VIR_DOMAIN_UNDEFINE_MANAGED_SAVE")
"""Firmware variables and TPM state are data and stay; a saved image is older than the guest that was migrated."""


def read_definition(hypervisor: Hypervisor, guest: str) -> Definition:
    """The persistent one with its secrets, so that it can be defined elsewhere. Problem ``guest-transient``.

    It is without the devices that libvirt adds by itself (migratable): an older one may not know them, as libvirt 9.0
    does not know the watchdog ``itco`` that 11.3 adds to every q35.
    """
    domain = hypervisor.domain(guest)
    libvirt = hypervisor.libvirt
    if not domain.isPersistent():
        raise Problem(
            "guest-transient",
            f"Guest {guest} has no persistent definition",
            f"Define it: virsh dumpxml {guest} --migratable > g.xml; virsh define g.xml",
            exit=Exit.REFUSED,
        )
    with hypervisor.calling("Reading a guest's definition"):
        persistent = domain.XMLDesc(
            libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE
        )
        live = domain.XMLDesc(0) if domain.isActive() else None
    return Definition(live=live, persistent=persistent)


def job_runs(hypervisor: Hypervisor, domain: Any) -> bool:
    """Whether libvirt is at a job of a guest, such as its migration; also where libvirt cannot tell."""
    libvirt = hypervisor.libvirt
    try:
        return domain.jobInfo()[0] in JOB_RUNNING
    except libvirt.libvirtError as error:
        # Only of a guest that is off is it certain: while QEMU is slow libvirt fails as well, and its job goes on.
        return error.get_error_code() not in (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN)


def qemu_pid(root: Path, guest: str) -> int:
    """The process that runs a guest, as libvirt notes it. Raises OSError."""
    return int((root / f"run/libvirt/qemu/{guest}.pid").read_text())


def uses_vfio(hypervisor: Hypervisor, domain: Any) -> bool:
    """Whether a running guest has devices of its host now."""
    with hypervisor.calling("Reading a guest's definition"):
        xml = read_domain(domain.XMLDesc(0))
    return bool(xml.devices) or any(nic.address for nic in xml.nics)


def define(hypervisor: Hypervisor, xml: str) -> Done:
    """Unchanged when it is defined exactly so. Problems: ``xml-invalid``, ``libvirt-failed``."""
    name = read_domain(xml).name
    domain = hypervisor.find(name)
    with hypervisor.calling(f"Defining guest {name}"):
        before = _persistent(hypervisor, domain)
        after = _persistent(hypervisor, hypervisor.connection().defineXMLFlags(xml, 0))
    return Done(changed=before != after)


def undefine(hypervisor: Hypervisor, guest: str) -> Done:
    """Unchanged when there is no such guest. Problem ``guest-running``, also when it is paused."""
    domain = hypervisor.find(guest)
    if domain is None:
        return Done(changed=False)
    if domain.isActive():
        raise _runs(guest, "its definition stays")
    flags = 0
    for name in UNDEFINE_FLAGS:
        flags |= getattr(hypervisor.libvirt, name, 0)
    with hypervisor.calling(f"Undefining guest {guest}"):
        domain.undefineFlags(flags)
    return Done()


def resume(hypervisor: Hypervisor, guest: str) -> Done:
    """Unchanged when it runs. Problems: ``guest-unknown``, ``guest-off``."""
    domain = hypervisor.domain(guest)
    number, _reason = state(hypervisor, domain)
    if number not in PAUSED and domain.isActive():
        return Done(changed=False)
    if number not in PAUSED:
        raise Problem("guest-off", f"Guest {guest} is off, not paused", f"Start it: virsh start {guest}")
    try:
        with hypervisor.calling(f"Resuming guest {guest}"):
            domain.resume()
    except Problem:
        # A cancelled migration lets it go on by itself: libvirt then says that it runs already.
        if not runs(hypervisor, guest):
            raise
        return Done(changed=False)
    return Done()


def destroy_incoming(hypervisor: Hypervisor, guest: str) -> Done:
    """Unchanged when it is off or unknown. Problems: ``guest-running``, ``guest-not-incoming``."""
    domain = hypervisor.find(guest)
    if domain is None or not domain.isActive():
        return Done(changed=False)
    number, reason = state(hypervisor, domain)
    if number in RUNNING:
        raise _runs(guest, "it is not ended")
    why = PAUSE_REASONS.get(reason, "unknown")
    if why not in INCOMING:
        raise Problem(
            "guest-not-incoming",
            f"Guest {guest} is paused here, but not by a migration that comes in ({why})",
            f"If it is really not needed: virsh destroy {guest}",
            exit=Exit.OPERATOR,
        )
    with hypervisor.calling(f"Ending the incoming {guest}"):
        domain.destroyFlags(0)
    return Done()


def concede(hypervisor: Hypervisor, guest: str, *, leaving: bool) -> Done:
    """Ends a paused guest that is `leaving`. Unchanged when it is off or unknown.

    Problems: ``guest-running``, ``guest-not-leaving``.
    """
    domain = hypervisor.find(guest)
    if domain is None or not domain.isActive():
        return Done(changed=False)
    number, _reason = state(hypervisor, domain)
    if number not in PAUSED:
        raise _runs(guest, "it is not ended")
    if not leaving:
        raise Problem(
            "guest-not-leaving",
            f"Guest {guest} is paused here, but not since it left with this operation",
            f"If it is really not needed: virsh destroy {guest}",
            exit=Exit.OPERATOR,
        )
    with hypervisor.calling(f"Ending {guest}, which has left"):
        domain.destroyFlags(0)
    return Done()


def runs(hypervisor: Hypervisor, guest: str) -> bool:
    """Whether a guest is here, and runs."""
    domain = hypervisor.find(guest)
    return domain is not None and state(hypervisor, domain)[0] in RUNNING


def is_paused(hypervisor: Hypervisor, guest: str) -> bool:
    """Whether a guest is here, and paused."""
    domain = hypervisor.find(guest)
    return domain is not None and state(hypervisor, domain)[0] in PAUSED


def state(hypervisor: Hypervisor, domain: Any) -> tuple[int, int]:
    """libvirt's numbers for a guest's state, and for why it is in it."""
    with hypervisor.calling("Asking for a guest's state"):
        number, reason = domain.state()
    return number, reason


def _persistent(hypervisor: Hypervisor, domain: Any) -> str | None:
    if domain is None or not domain.isPersistent():
        return None
    libvirt = hypervisor.libvirt
    xml: str = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
    return xml


def _runs(guest: str, so: str) -> Problem:
    return Problem(
        "guest-running", f"Guest {guest} runs here: {so}", f"Look with: vferry guest show {guest}", exit=Exit.OPERATOR
    )
