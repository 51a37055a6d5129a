"""With what QEMU encrypts a migration by itself: libvirt's certificates for it, as qemu.conf and their folder say.

Names of files and settings are those of libvirt's qemu.conf; what a certificate must be is in QEMU's "TLS setup for
network services".
"""

import re
import stat
from pathlib import Path

from vferry.host.qemu_user import qemu_user
from vferry.host.sysfs import read_file
from vferry.model.host import QemuTls
from vferry.model.problem import Exit, Problem

FOLDERS = ("etc/pki/libvirt-migrate", "etc/pki/qemu")
"""Where libvirt looks, in turn, if it is told nothing."""
AUTHORITY = "ca-cert.pem"
CERTIFICATES = ("server-cert.pem", "client-cert.pem")
KEYS = ("server-key.pem", "client-key.pem")


def read_qemu_tls(root: Path = Path("/")) -> QemuTls:
    """What there is on this host, or what it lacks."""
    folder = folder_of(root)
    shown = Path("/") / folder.relative_to(root)
    for name in (AUTHORITY, *CERTIFICATES, *KEYS):
        if not (folder / name).is_file():
            return QemuTls(lacks=f"there is no {shown / name}")
    if not _verifies(root):
        return QemuTls(lacks="/etc/libvirt/qemu.conf has QEMU take in whoever connects (migrate_tls_x509_verify)")
    for name in KEYS:
        if not _readable(folder / name, qemu_user(root)):
            return QemuTls(lacks=f"QEMU's user cannot read {shown / name}")
    # Imported here because it is slow to import, and most hosts have none.
    from vferry.host.qemu_certificates import examine

    return examine(folder, shown)


def name_shown(root: Path) -> str:
    """The name that QEMU of this host shows whoever sends it memory. Problem ``no-qemu-tls``."""
    tls = read_qemu_tls(root)
    if tls.lacks is not None:
        raise Problem(
            "no-qemu-tls",
            f"QEMU cannot take memory in by itself: {tls.lacks}",
            "Leave --direct out",
            exit=Exit.REFUSED,
        )
    return tls.names[0]


def folder_of(root: Path) -> Path:
    """Where libvirt has the certificates for migrations."""
    for setting in ("migrate_tls_x509_cert_dir", "default_tls_x509_cert_dir"):
        if said := _said(root, setting, r'"([^"]+)"'):
            return root / said.lstrip("/")
        if setting.startswith("migrate") and (root / FOLDERS[0]).is_dir():
            return root / FOLDERS[0]
    return root / FOLDERS[1]


def _verifies(root: Path) -> bool:
    """Whether a client has to show a certificate: libvirt's default."""
    for setting in ("migrate_tls_x509_verify", "default_tls_x509_verify"):
        if said := _said(root, setting, r"(\d+)"):
            return said != "0"
    return True


def _said(root: Path, setting: str, value: str) -> str | None:
    found = re.findall(rf"^\s*{setting}\s*=\s*{value}", read_file(root / "etc/libvirt/qemu.conf"), re.MULTILINE)
    return str(found[-1]) if found else None


def _readable(path: Path, user: int | None) -> bool:
    """Whether a user may read a file, as far as that can be told: one with its group's permission is believed."""
    about = path.stat()
    mode = stat.S_IROTH | stat.S_IRGRP | (stat.S_IRUSR if about.st_uid == user else 0)
    return user is None or bool(about.st_mode & mode)
