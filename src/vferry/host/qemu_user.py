"""As whom libvirt runs QEMU on this host."""

from pathlib import Path

from vferry.host.qemu_conf import said
from vferry.host.sysfs import read_file

USUAL = ("libvirt-qemu", "qemu")
"""Debian's, and that of others."""


def qemu_user(root: Path) -> int | None:
    """Its user ID, as qemu.conf says or as distributions have it; None for root, or where there is none of these."""
    configured = said(root, "user", r'"\+?([^"]+)"')
    lines = (line.split(":") for line in read_file(root / "etc/passwd").splitlines())
    known = {words[0]: int(words[2]) for words in lines if len(words) > 2 and words[2].isdigit()}
    for name in (configured,) if configured else USUAL:
        number = int(name) if name.isdigit() else known.get(name)
        if number is not None:
            return number or None
    return None
