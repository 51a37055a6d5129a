"""Plugging devices into a running guest and asking them back: what is so already is left alone."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from vferry.host.api import Done, PlugRelayed, PlugStandby, PlugVf
from vferry.host.domain_xml import DomainXml, has_alias, read_domain, relayed_xml, standby_xml, vf_xml
from vferry.host.hypervisor import Hypervisor
from vferry.host.sriov import free_vf
from vferry.model.definition import shares_memory
from vferry.model.problem import Exit, Problem

FD_LOST = "No file descriptor supplied via SCM_RIGHTS"
GRACE_S = 15.0
"""How much longer a device is waited for that the guest was to keep after all."""
LOOK_AGAIN_S = 0.5
"""How often the definition is looked at while an event is waited for that may have been lost."""


def plug_standby(hypervisor: Hypervisor, root: Path, wanted: PlugStandby) -> Done:
    """Problems: ``guest-unknown``, ``guest-off``, ``libvirt-failed``."""

    def plug() -> Done:
        return _plug(hypervisor, wanted.guest, wanted.alias, lambda: standby_xml(wanted))

    try:
        return plug()
    except Problem as problem:
        # AppArmor took /dev/vhost-net away on its way to QEMU: libvirt lets only those guests have it that started
        # with a virtio NIC. vferry's rule lets all, but a guest from before it was installed runs without it.
        if FD_LOST not in problem.message or not _reload_profile(root, hypervisor.running(wanted.guest).UUIDString()):
            raise
    return msgspec.structs.replace(plug(), detail="after its AppArmor profile was loaded again")


def plug_relayed(hypervisor: Hypervisor, wanted: PlugRelayed, socket: str) -> Done:
    """The relay must be able to connect to the socket. Problems: ``guest-off``, ``memory-not-shared``."""
    domain = hypervisor.running(wanted.guest)
    with hypervisor.calling("Reading a guest's definition"):
        xml = domain.XMLDesc(0)
    if not shares_memory(xml):
        raise Problem(
            "memory-not-shared",
            f"The memory of guest {wanted.guest} is not such that a relay could map it",
            "Shut the guest down, put its NIC on the relay then, and start it",
            exit=Exit.REFUSED,
        )
    return _plug(hypervisor, wanted.guest, wanted.alias, lambda: relayed_xml(wanted, socket))


def plug_vf(hypervisor: Hypervisor, wanted: PlugVf) -> Done:
    """Unchanged when the guest has the VF, under whatever alias.

    Where it has been asked to let go and has not answered, it is waited for a little longer: one that is merely slow
    would lose a VF that it was thought to keep. Problems: ``guest-unknown``, ``guest-off``, ``libvirt-failed``.
    """
    domain = hypervisor.running(wanted.guest)
    has = next((nic.alias for nic in _definition(hypervisor, domain).nics if nic.address == wanted.address), None)
    if has is not None and not _still_goes(hypervisor, domain, has):
        return Done(changed=False)
    return _plug(hypervisor, wanted.guest, wanted.alias, lambda: vf_xml(wanted))


def unplug(hypervisor: Hypervisor, root: Path, guest: str, alias: str, timeout_s: float) -> Done:
    """Asks a device back and waits until it is gone; unchanged when the guest has no such device.

    A VF is not left to a NIC driver of the host, which libvirt may give it back to.
    Problem ``unplug-refused`` when the guest keeps it; ``guest-off``, ``libvirt-failed``.
    """
    domain = hypervisor.running(guest)
    device = next((nic for nic in _definition(hypervisor, domain).nics if nic.alias == alias), None)
    if device is None and not _has(hypervisor, domain, alias):
        return Done(changed=False)
    done = _take_back(hypervisor, domain, guest, alias, timeout_s)
    if device is None or device.address is None:
        return done
    driver = free_vf(root, device.address)
    return msgspec.structs.replace(done, detail=f"{done.detail}; unbound from {driver}") if driver else done


def tap_of(hypervisor: Hypervisor, guest: str, mac: str) -> str | None:
    """The device on this host of a guest's NIC, where it has one: a VF has none.

    Problems: ``guest-unknown``, ``guest-off``.
    """
    nics = _definition(hypervisor, hypervisor.running(guest)).nics
    return next((nic.target for nic in nics if nic.mac == mac and nic.target), None)


def _take_back(hypervisor: Hypervisor, domain: Any, guest: str, alias: str, timeout_s: float) -> Done:
    started = time.monotonic()
    hypervisor.events.expect_unplug(domain.UUIDString(), alias)
    libvirt = hypervisor.libvirt
    try:
        domain.detachDeviceAlias(alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as error:
        # An earlier request that the guest has not answered yet: then wait for that one.
        if not _has(hypervisor, domain, alias):
            return Done()
        if not _already_asked(error):
            raise hypervisor.problem(error, f"Unplugging {alias} from guest {guest}") from error
    gone = _await_gone(hypervisor, domain, alias, timeout_s)
    if gone:
        return Done(detail=f"gone after {(time.monotonic() - started) * 1000:.0f} ms")
    if gone is False:
        raise _refused(guest, alias, "The guest refuses to give the device back")
    raise _refused(guest, alias, f"The guest has not let go within {timeout_s:g} s")


def _still_goes(hypervisor: Hypervisor, domain: Any, alias: str) -> bool:
    """Whether the guest lets go of a device after all that it was asked for in vain."""
    asked = hypervisor.events.unplug_is_open(domain.UUIDString(), alias)
    return asked and bool(_await_gone(hypervisor, domain, alias, GRACE_S))


def _await_gone(hypervisor: Hypervisor, domain: Any, alias: str, timeout_s: float) -> bool | None:
    """True when a device is gone that was asked back, False when the guest refused, None when it has not answered."""
    uuid, deadline = domain.UUIDString(), time.monotonic() + timeout_s
    while True:
        left = deadline - time.monotonic()
        heard = hypervisor.events.wait_for_unplug(uuid, alias, max(0.0, min(left, LOOK_AGAIN_S)))
        if heard or not _has(hypervisor, domain, alias):
            return True
        if heard is False or left <= 0:
            return heard


def _plug(hypervisor: Hypervisor, guest: str, alias: str, xml: Callable[[], str]) -> Done:
    domain = hypervisor.running(guest)
    if _has(hypervisor, domain, alias):
        return Done(changed=False)
    with hypervisor.calling(f"Plugging {alias} into guest {guest}"):
        domain.attachDeviceFlags(xml(), hypervisor.libvirt.VIR_DOMAIN_AFFECT_LIVE)
    return Done()


def _reload_profile(root: Path, uuid: str) -> bool:
    """Loads a running guest's AppArmor profile as it is on the disk now."""
    profile = root / f"etc/apparmor.d/libvirt/libvirt-{uuid}"
    try:
        done = subprocess.run(["apparmor_parser", "--replace", profile], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _definition(hypervisor: Hypervisor, domain: Any) -> DomainXml:
    with hypervisor.calling("Reading a guest's definition"):
        xml = domain.XMLDesc(0)
    return read_domain(xml)


def _has(hypervisor: Hypervisor, domain: Any, alias: str) -> bool:
    with hypervisor.calling("Reading a guest's definition"):
        return has_alias(domain.XMLDesc(0), alias)


def _already_asked(error: Any) -> bool:
    # QEMU's words, which libvirt passes on under its most general code.
    message = str(error.get_error_message() or error)
    return "already in the process of unplug" in message or "is already pending" in message


def _refused(guest: str, alias: str, why: str) -> Problem:
    return Problem(
        "unplug-refused",
        f"{why}: {alias} of {guest}",
        "Look in the guest whether something holds the NIC (dmesg, ip link)",
        exit=Exit.REFUSED,
        guest=guest,
        alias=alias,
    )
