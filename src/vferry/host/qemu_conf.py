"""libvirt's qemu.conf on this host."""

import re
from pathlib import Path

from vferry.host.sysfs import read_file


def said(root: Path, setting: str, value: str) -> str | None:
    """The group of a pattern, `value`, in what it says of a setting, the last time; None where it says nothing."""
    found = re.findall(rf"^\s*{setting}\s*=\s*{value}", read_file(root / "etc/libvirt/qemu.conf"), re.MULTILINE)
    return str(found[-1]) if found else None
