"""Applying settings to a VF through its PF: one group of attributes at a time, read back and compared."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from vferry.host.api import Done, DriverAbilities
from vferry.host.sriov import decode_settings, vfs_possible
from vferry.host.sriov_netlink import Links, set_vf
from vferry.model.host import NO_MAC, WIPED, LinkState, VfSettings
from vferry.model.problem import Exit, Problem

LINK_STATE_VALUES = {LinkState.AUTO: 0, LinkState.ENABLE: 1, LinkState.DISABLE: 2}

# In this order: a VLAN may change the spoof check, and the MAC makes the VF take frames in.
GROUPS: tuple[tuple[str, ...], ...] = (
    ("link_state",),
    ("vlan", "qos"),
    ("min_tx_rate", "max_tx_rate"),
    ("trust",),
    ("spoof_check",),
    ("mac",),
)


def apply_settings(links: Links, pf: str, index: int, wanted: VfSettings) -> Done:
    """Makes a VF's settings as wanted; what is so already is not set again, since it may reset a VF.

    Problems: ``vf-setting-refused``, with `setting`; ``vf-unknown``.
    """
    interface = links.index(pf)
    before = read_settings(links, interface, pf, index)
    notes: list[str] = []
    skipped: set[str] = set()
    changed = False
    for group in GROUPS:
        differing = tuple(_differing(group, before, wanted))
        if not differing:
            continue
        target = _filled(group, before, wanted)
        try:
            links.change(set_vf(interface, index, *encode_group(group, target)))
            changed = True
        except OSError as error:
            notes.append(_refused(error, pf, index, differing, target))
            skipped.update(differing)
    after = read_settings(links, interface, pf, index) if changed else before
    notes.extend(_verify(pf, index, before, wanted, after, skipped))
    return Done(changed=changed, detail="; ".join(notes))


def ask_driver(links: Links, root: Path, pf: str) -> DriverAbilities:
    """Which settings the driver of a PF lacks, by its answer for a VF that the PF cannot have.

    What it lacks is refused with EOPNOTSUPP, by the kernel or by the driver, and anything else because there is no such
    VF: nothing is changed (docs/decisions/0019). A PF that does not say how many it can have is not asked.
    """
    interface, beyond = links.index(pf), vfs_possible(root, pf)
    if beyond == 0:
        return DriverAbilities()
    groups = [group for group in GROUPS if group != ("mac",)]
    errors = links.change_together(*(set_vf(interface, beyond, *encode_group(group, WIPED)) for group in groups))
    refused = (group for group, error in zip(groups, errors, strict=True) if error == errno.EOPNOTSUPP)
    return DriverAbilities(lacks=tuple(name for group in refused for name in group))


def encode_group(group: tuple[str, ...], settings: VfSettings) -> tuple[str, dict[str, Any]]:
    """One group as the kernel takes it: the attribute of a VF, and its fields."""
    match group[0]:
        case "link_state":
            state = settings.link_state or LinkState.AUTO
            return "IFLA_VF_LINK_STATE", {"link_state": LINK_STATE_VALUES[state]}
        case "vlan":
            return "IFLA_VF_VLAN", {"vlan": settings.vlan or 0, "qos": settings.qos or 0}
        case "min_tx_rate":
            rates = {"min_tx_rate": settings.min_tx_rate or 0, "max_tx_rate": settings.max_tx_rate or 0}
            return "IFLA_VF_RATE", rates
        case "trust":
            return "IFLA_VF_TRUST", {"trust": int(bool(settings.trust))}
        case "spoof_check":
            return "IFLA_VF_SPOOFCHK", {"spoofchk": int(bool(settings.spoof_check))}
        case _:
            return "IFLA_VF_MAC", {"mac": (settings.mac or NO_MAC).lower()}


def read_settings(links: Links, interface: int, pf: str, index: int) -> VfSettings:
    """One VF's settings. Problem ``vf-unknown``."""
    settings = decode_settings(links.get(interface)).get(index)
    if settings is None:
        raise Problem("vf-unknown", f"{pf} has no VF {index}", "Look with: ip link show dev PF")
    return settings


def _differing(group: tuple[str, ...], now: VfSettings, wanted: VfSettings) -> Iterator[str]:
    for name in group:
        value = getattr(wanted, name)
        if value is not None and _normal(value) != getattr(now, name):
            yield name


def _filled(group: tuple[str, ...], now: VfSettings, wanted: VfSettings) -> VfSettings:
    """A group is set as a whole: what is not wanted otherwise stays as it is."""
    values = {name: getattr(now if getattr(wanted, name) is None else wanted, name) for name in group}
    return msgspec.structs.replace(VfSettings(), **values)


def _refused(error: OSError, pf: str, index: int, names: tuple[str, ...], target: VfSettings) -> str:
    lacking = error.errno == errno.EOPNOTSUPP
    if lacking and all(getattr(target, name) == getattr(WIPED, name) for name in names):
        return f"{', '.join(names)}: not known to the driver, and so as the kernel makes it"
    values = ", ".join(f"{name} {getattr(target, name)}" for name in names)
    why = "the driver lacks it" if lacking else os.strerror(error.errno or 0)
    raise _problem(pf, index, names, f"{values} was refused ({why})")


def _verify(
    pf: str, index: int, before: VfSettings, wanted: VfSettings, after: VfSettings, skipped: set[str]
) -> Iterator[str]:
    for name in (name for group in GROUPS for name in group):
        value, now = getattr(wanted, name), getattr(after, name)
        if value is None or now is None or _normal(value) == now or name in skipped:
            continue
        if name == "mac" and value == NO_MAC and now != before.mac:
            # Some drivers invent a MAC for a VF without one. What counts is that the guest's is gone.
            yield f"mac: the driver shows {now}"
            continue
        raise _problem(pf, index, (name,), f"{name} is {now} after it was set to {value}")


def _normal(value: Any) -> Any:
    return value.lower() if isinstance(value, str) and not isinstance(value, LinkState) else value


def _problem(pf: str, index: int, names: tuple[str, ...], what: str) -> Problem:
    return Problem(
        "vf-setting-refused",
        f"VF {index} of {pf}: {what}",
        "Choose a VF whose driver can do it, or change the setting; look with: ip link show dev " + pf,
        exit=Exit.REFUSED,
        pf=pf,
        index=index,
        setting=names[0],
    )
