"""With what QEMU encrypts a migration by itself: libvirt's certificates for it, as qemu.conf and their folder say.

Names of files and settings are those of libvirt's qemu.conf; what a certificate must be is in QEMU's "TLS setup for
network services".
"""

import stat
from pathlib import Path

from vferry.host.qemu_conf import said
from vferry.host.qemu_user import qemu_user
from vferry.model.host import QemuTls
from vferry.model.problem import Exit, Problem

USES = ("migrate", "default")
"""By which settings of qemu.conf begin: what is said for migrations goes before what is said for all."""
MIGRATIONS, QEMUS = "etc/pki/libvirt-migrate", "etc/pki/qemu"
"""Where libvirt looks if it is told nothing: in the former, for migrations alone, where that is there."""
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
    user = qemu_user(root)
    for name in KEYS:
        if not _readable(folder / name, user):
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
    for_migrations, for_all = (said(root, f"{use}_tls_x509_cert_dir", r'"([^"]+)"') for use in USES)
    own = MIGRATIONS if (root / MIGRATIONS).is_dir() else None
    return root / (for_migrations or own or for_all or QEMUS).lstrip("/")


def _verifies(root: Path) -> bool:
    """Whether a client has to show a certificate: libvirt's default."""
    for_migrations, for_all = (said(root, f"{use}_tls_x509_verify", r"(\d+)") for use in USES)
    return (for_migrations or for_all) != "0"


def _readable(path: Path, user: int | None) -> bool:
    """Whether a user may read a file, as far as that can be told: one with its group's permission is believed."""
    about = path.stat()
    mode = stat.S_IROTH | stat.S_IRGRP | (stat.S_IRUSR if about.st_uid == user else 0)
    return user is None or bool(about.st_mode & mode)
