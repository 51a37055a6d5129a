"""Giving a VF to a driver, by `driver_override`: other devices of its kind stay with theirs."""

from pathlib import Path

from vferry.host.api import BindVf, Done
from vferry.host.sriov import VFIO, vf_driver
from vferry.host.sysfs import Write, write_attribute
from vferry.model.problem import Exit, Problem

PCI = "sys/bus/pci"
NONE = "\n"
"""What clears an override."""


def bind_vf(root: Path, wanted: BindVf, write: Write = write_attribute) -> Done:
    """Carries `BindVf` out; what does not succeed leaves the VF with the driver that it had.

    Problems: ``vf-unknown``, ``driver-refused``.
    """
    address, driver = wanted.address, wanted.driver
    device = root / PCI / "devices" / address
    if not (device / "physfn").exists():
        if wanted.if_there:
            return Done(changed=False)
        raise Problem("vf-unknown", f"This host has no VF at {address}", "Look with: vferry host show HOST")
    before = vf_driver(root, address)
    if before == driver:
        return Done(changed=False)
    if driver is not None and not (root / PCI / "drivers" / driver).is_dir():
        raise _refused(address, driver, "it is not loaded", f"modprobe {driver}")
    try:
        _give(root, address, before, driver, write)
        after = vf_driver(root, address)
    except OSError as error:
        after, why = vf_driver(root, address), error.strerror or str(error)
    else:
        why = f"it is with {after or 'none'}"
    if after != driver:
        _put_back(root, address, before, write)
        raise _refused(address, driver, why, "Look at the end of: dmesg")
    return Done(detail=f"from {before or 'no driver'} to {driver or 'none'}")


def _give(root: Path, address: str, before: str | None, driver: str | None, write: Write) -> None:
    device = root / PCI / "devices" / address
    write(device / "driver_override", driver or NONE)
    if before is not None:
        write(device / "driver/unbind", address)
    if driver is None:
        return
    write(root / PCI / "drivers_probe", address)
    if driver != VFIO:
        # It has got it; others may have it next.
        write(device / "driver_override", NONE)


def _put_back(root: Path, address: str, before: str | None, write: Write) -> None:
    now = vf_driver(root, address)
    try:
        if now != before:
            _give(root, address, now, before, write)
        elif before != VFIO:
            write(root / PCI / "devices" / address / "driver_override", NONE)
    except OSError as error:
        raise _refused(
            address, before, f"nor is it as before: {error.strerror}", f"Look at /sys/bus/pci/devices/{address}/driver"
        ) from error


def _refused(address: str, driver: str | None, why: str, remedy: str) -> Problem:
    return Problem(
        "driver-refused",
        f"The VF {address} does not go to {driver or 'no driver'}: {why}",
        remedy,
        exit=Exit.REFUSED,
        address=address,
    )
