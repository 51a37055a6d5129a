"""The certificates with which QEMU sends memory by itself: found, judged, made and renewed."""

import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from vferry.controller import authority as authority_module
from vferry.controller.authority import Authority
from vferry.host.qemu_certificates import QemuCertificates
from vferry.host.qemu_tls import name_shown, read_qemu_tls
from vferry.model.problem import Problem

FILES = ("ca-cert.pem", "server-cert.pem", "server-key.pem", "client-cert.pem", "client-key.pem")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host on which QEMU is root."""
    made = tmp_path / "host"
    configure(made, 'user = "0"')
    return made


def configure(root: Path, text: str) -> None:
    (root / "etc/libvirt").mkdir(parents=True, exist_ok=True)
    (root / "etc/libvirt/qemu.conf").write_text(f"{text}\n")


def certify(root: Path, authority: Authority, name: str = "host1") -> None:
    made = QemuCertificates(root, name)
    request = made.request(authority.ca_pem)
    made.install(authority.sign(request, name, "192.0.2.1", key_usage=False), authority.ca_pem)


def test_a_host_is_certified_and_then_has_what_it_needs(root: Path, authority: Authority) -> None:
    assert read_qemu_tls(root).lacks == "there is no /etc/pki/qemu/ca-cert.pem"
    certify(root, authority)
    found = read_qemu_tls(root)
    assert (found.lacks, found.names) == (None, ("host1",))
    assert name_shown(root) == "host1"
    folder = root / "etc/pki/qemu"
    assert {path.name for path in folder.iterdir()} == {*FILES}
    for side in ("server", "client"):
        ssl.create_default_context().load_cert_chain(folder / f"{side}-cert.pem", folder / f"{side}-key.pem")
        assert (folder / f"{side}-key.pem").stat().st_mode & 0o077 == 0, "QEMU's alone"


def test_hosts_of_one_authority_are_seen_to_be(root: Path, tmp_path: Path, authority: Authority) -> None:
    configure(tmp_path / "other", 'user = "0"')
    certify(root, authority)
    certify(tmp_path / "other", authority, "host2")
    here, there = read_qemu_tls(root), read_qemu_tls(tmp_path / "other")
    assert here.authority == there.authority != ""
    assert (here.names, there.names) == (("host1",), ("host2",))


def test_it_is_renewed_with_the_key_that_is_there(root: Path, authority: Authority) -> None:
    certify(root, authority)
    folder = root / "etc/pki/qemu"
    before = {name: (folder / name).read_bytes() for name in FILES}
    certify(root, authority)
    changed = {name for name in FILES if (folder / name).read_bytes() != before[name]}
    assert changed == {"server-cert.pem", "client-cert.pem"}


def test_what_an_operator_has_put_there_stays(root: Path, tmp_path: Path, authority: Authority) -> None:
    certify(root, authority)
    folder = root / "etc/pki/qemu"
    before = {name: (folder / name).read_bytes() for name in FILES}
    with pytest.raises(Problem, match="of another authority") as caught:
        certify(root, Authority(tmp_path / "second"))
    assert caught.value.code == "qemu-tls-of-others"
    assert {name: (folder / name).read_bytes() for name in FILES} == before
    assert read_qemu_tls(root).lacks is None


def test_a_folder_that_cannot_be_written_is_a_problem(root: Path, authority: Authority) -> None:
    (root / "etc/pki").write_text("no folder")
    with pytest.raises(Problem, match=r"cannot be put into .*/etc/pki/qemu: Not a directory") as caught:
        certify(root, authority)
    assert caught.value.code == "qemu-tls-unwritable"


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ('user = "0"', "etc/pki/qemu"),
        ('user = "0"\n#migrate_tls_x509_cert_dir = "/etc/pki/libvirt-migrate"', "etc/pki/qemu"),
        ('user = "0"\ndefault_tls_x509_cert_dir = "/srv/tls"', "srv/tls"),
        ('user = "0"\ndefault_tls_x509_cert_dir = "/srv/tls"\nmigrate_tls_x509_cert_dir = "/srv/qemu"', "srv/qemu"),
    ],
)
def test_the_folder_is_libvirts(root: Path, authority: Authority, text: str, folder: str) -> None:
    configure(root, text)
    certify(root, authority)
    assert (root / folder / "server-key.pem").exists()
    assert read_qemu_tls(root).lacks is None


def test_libvirts_own_folder_for_migrations_goes_before_qemus(root: Path, authority: Authority) -> None:
    (root / "etc/pki/libvirt-migrate").mkdir(parents=True)
    certify(root, authority)
    assert (root / "etc/pki/libvirt-migrate/client-key.pem").exists()


def without(name: str) -> Callable[[Path], None]:
    return lambda root: (root / "etc/pki/qemu" / name).unlink()


def said(text: str) -> Callable[[Path], None]:
    return lambda root: configure(root, text)


def written(name: str, text: str) -> Callable[[Path], None]:
    return lambda root: void((root / "etc/pki/qemu" / name).write_text(text))


def void(_: object) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "lacks"),
    [
        *((without(name), f"there is no /etc/pki/qemu/{name}") for name in FILES),
        (said("migrate_tls_x509_verify = 0"), "has QEMU take in whoever connects"),
        (said("default_tls_x509_verify = 0"), "has QEMU take in whoever connects"),
        (said("migrate_tls_x509_verify = 1\ndefault_tls_x509_verify = 0"), None),
        (said('user = "4711"'), "QEMU's user cannot read /etc/pki/qemu/server-key.pem"),
        (written("client-cert.pem", "no certificate"), "the certificates in /etc/pki/qemu cannot be read: "),
    ],
)
def test_what_is_missing_is_said(
    root: Path, authority: Authority, spoil: Callable[[Path], None], lacks: str | None
) -> None:
    certify(root, authority)
    spoil(root)
    found = read_qemu_tls(root).lacks
    assert found == lacks if lacks is None else found is not None and lacks in found
    if lacks is not None:
        with pytest.raises(Problem, match="cannot take memory in by itself") as caught:
            name_shown(root)
        assert caught.value.code == "no-qemu-tls"


def test_one_that_has_expired_is_none(root: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority_module, "CERTIFICATE_DAYS", -1)
    monkeypatch.setattr(authority_module, "BACKDATED", dt.timedelta(days=2))
    certify(root, authority)
    assert read_qemu_tls(root).lacks == "/etc/pki/qemu/server-cert.pem has expired"


def test_one_without_a_name_is_none(root: Path, authority: Authority) -> None:
    certify(root, authority)
    folder = root / "etc/pki/qemu"
    (folder / "server-cert.pem").write_bytes((authority.directory / "controller.crt").read_bytes())
    assert read_qemu_tls(root).lacks == "/etc/pki/qemu/server-cert.pem has no DNS name"
