"""A host's key and certificate."""

from pathlib import Path

import pytest
from cryptography import x509

from vferry.controller.authority import Authority
from vferry.host.certificates import Certificates
from vferry.host.certificates_tls import complete, host_files, is_controller, names
from vferry.model.problem import Problem


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def test_the_key_is_made_once_and_is_for_root_alone(tmp_path: Path) -> None:
    certificates = Certificates(host_files(tmp_path), "host1")
    first = x509.load_pem_x509_csr(certificates.request().encode())
    second = x509.load_pem_x509_csr(Certificates(host_files(tmp_path), "host1").request().encode())
    assert first.public_key() == second.public_key()
    assert certificates.files.key.stat().st_mode & 0o777 == 0o600
    assert certificates.files.key.parent.stat().st_mode & 0o777 == 0o700


def test_what_is_signed_is_installed(tmp_path: Path, authority: Authority) -> None:
    certificates = Certificates(host_files(tmp_path), "host1")
    assert not complete(certificates.files)
    certificate = authority.sign(certificates.request(), "host1", "10.8.0.1")
    assert not complete(certificates.files)
    assert certificates.install(certificate, authority.ca_pem)
    assert complete(certificates.files)
    assert certificates.files.certificate == tmp_path / "pki" / "host.crt"
    assert not certificates.install(certificate, authority.ca_pem)


def test_a_certificate_for_another_key_is_refused(tmp_path: Path, authority: Authority) -> None:
    certificates = Certificates(host_files(tmp_path / "a"), "host1")
    certificates.request()
    other = authority.sign(Certificates(host_files(tmp_path / "b"), "host1").request(), "host1", "10.8.0.1")
    with pytest.raises(Problem, match="not for the key of host1"):
        certificates.install(other, authority.ca_pem)
    assert not complete(certificates.files)


def test_a_certificate_of_another_ca_is_refused(tmp_path: Path, authority: Authority) -> None:
    certificates = Certificates(host_files(tmp_path / "a"), "host1")
    certificate = authority.sign(certificates.request(), "host1", "10.8.0.1")
    with pytest.raises(Problem, match="not a certificate of that CA"):
        certificates.install(certificate, Authority(tmp_path / "other").ca_pem)
    with pytest.raises(Problem, match="not a certificate of that CA"):
        certificates.install("no certificate", authority.ca_pem)
    assert not complete(certificates.files)


def test_who_a_certificate_stands_for() -> None:
    controller = {"subjectAltName": (("URI", "urn:vferry:controller"),)}
    host = {"subjectAltName": (("DNS", "controller"), ("URI", "urn:vferry:host:controller"))}
    assert is_controller(controller)
    assert not is_controller(host)
    assert not is_controller({})
    assert not is_controller(None)
    assert not is_controller({"subjectAltName": (("DNS", "urn:vferry:controller"),)})
    assert names(host) == "controller, urn:vferry:host:controller"
