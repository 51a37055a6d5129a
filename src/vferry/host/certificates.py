"""A host's key, which never leaves it, and the certificate that the controller's CA gives it."""

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vferry.host.certificates_tls import TlsFiles
from vferry.host.durable import write_durably
from vferry.model.problem import Problem


class Certificates:
    """The files of one host: its agent's and gateways' (`host_files`), or its QEMU's."""

    def __init__(self, files: TlsFiles, name: str, again: str = "vferry host add {} URI") -> None:
        """`again` is the command that has another certificate made."""
        self.files = files
        self.name = name
        self._again = again.format(name)

    def request(self) -> str:
        """A PEM signing request for the host's key; the key is made when there is none."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self._key(), hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM).decode()

    def install(self, certificate: str, ca: str) -> bool:
        """Stores what the CA has signed; False when it is there already. Problem ``certificate-invalid``."""
        self._check(certificate, ca)
        changed = False
        for path, text in ((self.files.ca, ca), (self.files.certificate, certificate)):
            data = text.encode()
            if not path.exists() or path.read_bytes() != data:
                write_durably(path, data, 0o644)
                changed = True
        return changed

    def _check(self, certificate: str, ca: str) -> None:
        try:
            issuer = x509.load_pem_x509_certificate(ca.encode())
            own = x509.load_pem_x509_certificate(certificate.encode())
            own.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise Problem(
                "certificate-invalid",
                f"The certificate for {self.name} is not a certificate of that CA",
                f"Have another one made: {self._again}",
            ) from error
        if own.public_key() != self._key().public_key():
            raise Problem(
                "certificate-invalid",
                f"The certificate is not for the key of {self.name}",
                f"Have another one made: {self._again}",
            )

    def _key(self) -> ec.EllipticCurvePrivateKey:
        path = self.files.key
        if path.exists():
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise Problem("key-invalid", f"{path} is not an elliptic-curve key", "Remove it; a new one is made")
            return key
        key = ec.generate_private_key(ec.SECP256R1())
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(path, private_pem(key))
        return key


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
