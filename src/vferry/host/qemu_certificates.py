"""The certificates of this host's QEMU: what is in them, and new ones that a controller's authority for QEMUs signs.

That authority is another one than the hosts'. QEMU can read its key, and so can whoever breaks out of a guest: it must
be good for nothing else.
"""

import datetime as dt
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vferry.host.api import Done
from vferry.host.certificates import Certificates
from vferry.host.certificates_tls import TlsFiles
from vferry.host.durable import write_durably
from vferry.host.qemu_tls import AUTHORITY, CERTIFICATES, KEYS, folder_of
from vferry.host.qemu_user import qemu_user
from vferry.model.host import QemuTls
from vferry.model.problem import Exit, Problem


class QemuCertificates:
    """Those in libvirt's folder, made and renewed, unless they are somebody else's."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._folder = folder_of(root)
        files = TlsFiles(
            ca=self._folder / AUTHORITY, certificate=self._folder / CERTIFICATES[0], key=self._folder / KEYS[0]
        )
        self._server = Certificates(files, name, "vferry host certify-qemu {}")

    def request(self, ca: str) -> str:
        """A PEM signing request to the authority with this certificate.

        Problems ``qemu-tls-of-others``, ``qemu-tls-unwritable``.
        """
        self._refuse_others(ca)
        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=True)
            return self._server.request()

    def install(self, certificate: str, ca: str) -> Done:
        """Stores what was signed, for QEMU as a server and as a client.

        Problems ``certificate-invalid``, ``qemu-tls-of-others``, ``qemu-tls-unwritable``.
        """
        self._refuse_others(ca)
        with self._writing():
            self._store(certificate, ca)
        return Done()

    def _store(self, certificate: str, ca: str) -> None:
        """The keys first: a host that has the certificates has all of it."""
        server, client = (self._folder / name for name in KEYS)
        write_durably(client, server.read_bytes(), 0o400)
        user = qemu_user(self._root)
        if user is not None and os.geteuid() == 0:
            for path in (server, client):
                os.chown(path, user, -1)
        self._server.install(certificate, ca)
        write_durably(self._folder / CERTIFICATES[1], certificate.encode(), 0o644)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Problem(
                "qemu-tls-unwritable",
                f"Certificates for QEMU cannot be put into {self._folder}: {error.strerror}",
                "Let the agent write there (ReadWritePaths= of vferry-agent.service), or put some there by hand",
                exit=Exit.REFUSED,
            ) from error

    def _refuse_others(self, ca: str) -> None:
        path = self._folder / AUTHORITY
        if path.exists() and path.read_text().strip() != ca.strip():
            raise Problem(
                "qemu-tls-of-others",
                f"{path} is of another authority than this controller's for QEMUs",
                "Leave it as it is, where all hosts have certificates of that one: --direct works with any. Else "
                f"remove the files in {path.parent}",
                exit=Exit.REFUSED,
            )


def examine(folder: Path, shown: Path) -> QemuTls:
    """What the certificates in a folder say, which messages call `shown`."""
    try:
        authority, server, client = (_certificate(folder / name) for name in (AUTHORITY, *CERTIFICATES))
        names = _names(server)
    except (OSError, ValueError) as error:
        return QemuTls(lacks=f"the certificates in {shown} cannot be read: {error}")
    for name, certificate in zip((AUTHORITY, *CERTIFICATES), (authority, server, client), strict=True):
        if certificate.not_valid_after_utc < dt.datetime.now(dt.UTC):
            return QemuTls(lacks=f"{shown / name} has expired")
    if not names:
        return QemuTls(lacks=f"{shown / CERTIFICATES[0]} has no DNS name")
    return QemuTls(names=names, authority=_fingerprint(authority))


def _certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(alternatives.get_values_for_type(x509.DNSName))


def _fingerprint(authority: x509.Certificate) -> str:
    """Of its key, which a renewed certificate of it keeps."""
    key = authority.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).hexdigest()
