"""The controller's own certificate authority: it names hosts, and nobody else does."""

import datetime as dt
import fcntl
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vferry.host.certificates import private_pem
from vferry.host.certificates_tls import CONTROLLER_URI, TlsFiles
from vferry.host.durable import write_durably
from vferry.model.problem import Exit, Problem

CA_DAYS = 3650
CERTIFICATE_DAYS = 730
RENEW_DAYS = 60
"""The controller's own certificate is made anew when it has less than this left."""
BACKDATED = dt.timedelta(hours=1)
"""A host's clock may be behind the controller's."""


class Authority:
    """The CA in a folder, made at first use: ``ca.key``, ``ca.crt``, ``controller.key``, ``controller.crt``."""

    def __init__(self, directory: Path) -> None:
        """Problem ``authority-broken`` when only a part of the CA is there."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory = directory
        self.files = TlsFiles(
            ca=directory / "ca.crt", certificate=directory / "controller.crt", key=directory / "controller.key"
        )
        with (directory / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._key, self._certificate = self._load() if self._made() else self._make()
            self._keep_controller()

    @property
    def ca_pem(self) -> str:
        return self.files.ca.read_text()

    def sign(self, request: str, name: str, address: str, *, key_usage: bool = True) -> str:
        """A PEM certificate for a host's PEM signing request, good for 2 years.

        Its names are `name` (DNS) and the migration network's `address` (IP), whatever the request asks for. Without
        `key_usage` it does not say what its key is for. Problem ``certificate-request-invalid``.
        """
        key = _requested_key(request, name)
        alternatives: list[x509.GeneralName] = [
            x509.DNSName(name),
            x509.IPAddress(ipaddress.ip_address(address)),
            x509.UniformResourceIdentifier(f"urn:vferry:host:{name}"),
        ]
        # A gateway is a client when it sends and a server when it receives.
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return _pem(self._issue(key, name, alternatives, usages, key_usage=key_usage)).decode()

    def _made(self) -> bool:
        there = [path.exists() for path in (self.directory / "ca.key", self.files.ca)]
        if any(there) and not all(there):
            raise Problem(
                "authority-broken",
                f"A part of the certificate authority in {self.directory} is missing",
                "Bring it back from a backup, or remove the folder and add every host again",
                exit=Exit.OPERATOR,
            )
        return all(there)

    def _load(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = serialization.load_pem_private_key((self.directory / "ca.key").read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Problem("authority-broken", f"The key in {self.directory} is not ours", "Remove the folder")
        return key, x509.load_pem_x509_certificate(self.files.ca.read_bytes())

    def _make(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("vferry CA")
        certificate = (
            _builder(name, name, key.public_key(), CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_durably(self.directory / "ca.key", private_pem(key))
        write_durably(self.files.ca, _pem(certificate))
        return key, certificate

    def _keep_controller(self) -> None:
        if self.files.key.exists() and self.files.certificate.exists():
            current = x509.load_pem_x509_certificate(self.files.certificate.read_bytes())
            left = current.not_valid_after_utc - dt.datetime.now(dt.UTC)
            if left > dt.timedelta(days=RENEW_DAYS):
                return
        # Never a new key beside an old certificate, whenever we are interrupted.
        self.files.certificate.unlink(missing_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(CONTROLLER_URI)]
        certificate = self._issue(key.public_key(), "vferry controller", names, [ExtendedKeyUsageOID.CLIENT_AUTH])
        write_durably(self.files.key, private_pem(key))
        write_durably(self.files.certificate, _pem(certificate))

    def _issue(
        self,
        key: ec.EllipticCurvePublicKey,
        name: str,
        names: list[x509.GeneralName],
        usages: list[x509.ObjectIdentifier],
        *,
        key_usage: bool = True,
    ) -> x509.Certificate:
        builder = (
            _builder(_name(name), self._certificate.subject, key, CERTIFICATE_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if key_usage:
            builder = builder.add_extension(_key_usage(ca=False), critical=True)
        return builder.sign(self._key, hashes.SHA256())


def _requested_key(request: str, name: str) -> ec.EllipticCurvePublicKey:
    try:
        read = x509.load_pem_x509_csr(request.encode())
        key = read.public_key()
        proven = read.is_signature_valid
    except ValueError:
        raise _refused(name, "is none") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _refused(name, "is not for a P-256 key")
    if not proven:
        raise _refused(name, "is not signed with the key that it is for")
    return key


def _refused(name: str, why: str) -> Problem:
    return Problem(
        "certificate-request-invalid",
        f"The certificate request of {name} {why}",
        "Remove /var/lib/vferry/pki on that host, restart its agent, and add it again",
        exit=Exit.REFUSED,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
