"""The controller's CA: what it signs, and under which names."""

import datetime as dt
import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vferry.controller import authority as module
from vferry.controller.authority import Authority
from vferry.host.certificates import Certificates
from vferry.host.certificates_tls import host_files
from vferry.model.problem import Exit, Problem

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def request(key: Key, name: str = "evil") -> str:
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("urn:vferry:controller")]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_names_are_ours_whatever_the_request_asks(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pem = authority.sign(request(ec.generate_private_key(ec.SECP256R1())), "host1", "10.8.0.1")
    certificate = x509.load_pem_x509_certificate(pem.encode())
    certificate.verify_directly_issued_by(read(tmp_path / "ca.crt"))
    assert certificate.subject.rfc4514_string() == "CN=host1"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["host1"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.8.0.1")]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:vferry:host:host1"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    days = (certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)).days
    assert 728 <= days <= 730


def test_requests_that_are_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good = request(ec.generate_private_key(ec.SECP256R1()))
    tampered = x509.load_pem_x509_csr(good.encode()).public_bytes(serialization.Encoding.DER)
    tampered = tampered[:-1] + bytes([tampered[-1] ^ 1])
    forged = x509.load_der_x509_csr(tampered).public_bytes(serialization.Encoding.PEM).decode()
    rsa_key = rsa.generate_private_key(65537, 2048)
    for pem, says in (
        ("nothing", "is none"),
        (request(rsa_key), "not for a P-256 key"),
        (request(ec.generate_private_key(ec.SECP384R1())), "not for a P-256 key"),
        (forged, "not signed with the key"),
    ):
        with pytest.raises(Problem, match=says) as caught:
            authority.sign(pem, "host1", "10.8.0.1")
        assert caught.value.code == "certificate-request-invalid"


def test_it_is_made_once_and_its_keys_are_private(tmp_path: Path) -> None:
    first = Authority(tmp_path / "pki")
    before = {path.name: path.read_bytes() for path in first.directory.iterdir()}
    again = Authority(tmp_path / "pki")
    assert {path.name: path.read_bytes() for path in again.directory.iterdir()} == before
    assert first.directory.stat().st_mode & 0o777 == 0o700
    for name in ("ca.key", "ca.crt", "controller.key", "controller.crt"):
        assert (first.directory / name).stat().st_mode & 0o777 == 0o600
    lasts = read(first.files.ca).not_valid_after_utc - dt.datetime.now(dt.UTC)
    assert lasts.days >= 3649


def test_the_controllers_certificate_is_a_clients_only(tmp_path: Path) -> None:
    certificate = read(Authority(tmp_path).files.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("urn:vferry:controller")]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_the_controllers_certificate_is_renewed_before_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CERTIFICATE_DAYS", module.RENEW_DAYS - 1)
    old = read(Authority(tmp_path).files.certificate)
    monkeypatch.undo()
    new = read(Authority(tmp_path).files.certificate)
    assert new.not_valid_after_utc > old.not_valid_after_utc
    new.verify_directly_issued_by(read(tmp_path / "ca.crt"))


@pytest.mark.parametrize("lost", ["controller.key", "controller.crt"])
def test_a_lost_half_of_the_controllers_identity_is_made_anew(tmp_path: Path, lost: str) -> None:
    files = Authority(tmp_path).files
    (tmp_path / lost).unlink()
    Authority(tmp_path)
    key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    assert key.public_key() == read(files.certificate).public_key()


@pytest.mark.parametrize("lost", ["ca.key", "ca.crt"])
def test_a_ca_of_which_a_part_is_lost_is_not_replaced_silently(tmp_path: Path, lost: str) -> None:
    Authority(tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(Problem) as caught:
        Authority(tmp_path)
    assert caught.value.code == "authority-broken"
    assert caught.value.exit == Exit.OPERATOR


def test_a_hosts_request_is_signed(tmp_path: Path) -> None:
    certificates = Certificates(host_files(tmp_path / "host"), "host1")
    authority = Authority(tmp_path / "pki")
    assert certificates.install(authority.sign(certificates.request(), "host1", "fd00::1"), authority.ca_pem)
