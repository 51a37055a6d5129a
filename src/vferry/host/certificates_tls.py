"""Mutual TLS 1.3 between controller and agents: the files, the contexts, and who a certificate stands for."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

CONTROLLER_URI = "urn:vferry:controller"
"""The subject alternative name of a controller's certificate: only its bearer may call an agent."""


class TlsFiles(Struct, frozen=True, kw_only=True):
    """PEM files: whom to trust, and one's own certificate and key."""

    ca: Path
    certificate: Path
    key: Path


def host_files(directory: Path) -> TlsFiles:
    """Where an agent with this state directory keeps them; its gateways use the same ones."""
    pki = directory / "pki"
    return TlsFiles(ca=pki / "ca.crt", certificate=pki / "host.crt", key=pki / "host.key")


def complete(files: TlsFiles) -> bool:
    return all(path.exists() for path in (files.ca, files.certificate, files.key))


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Asks every client for a certificate of our CA."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files.ca))
    context.verify_mode = ssl.CERT_REQUIRED
    return _with_identity(context, files)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Trusts our CA alone, and wants the name that it connects to in the server's certificate."""
    return _with_identity(ssl.create_default_context(cafile=str(files.ca)), files)


def _with_identity(context: ssl.SSLContext, files: TlsFiles) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(str(files.certificate), str(files.key))
    return context


def is_controller(certificate: Mapping[str, Any] | None) -> bool:
    """Whether a verified peer's certificate, as `ssl` gives it, is a controller's."""
    return ("URI", CONTROLLER_URI) in (certificate or {}).get("subjectAltName", ())


def names(certificate: Mapping[str, Any] | None) -> str:
    """The names in a verified peer's certificate, for the log."""
    return ", ".join(value for _, value in (certificate or {}).get("subjectAltName", ())) or "nobody"
