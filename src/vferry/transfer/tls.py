"""Mutual TLS 1.3: contexts, handshake, and the one identity that is accepted."""

import socket
import ssl
from pathlib import Path
from typing import NamedTuple

from vferry.model.problem import Problem


class Credentials(NamedTuple):
    """PEM files: the authority that signs both gateways' certificates, and this one's own."""

    ca: Path
    cert: Path
    key: Path


class IdentityError(Exception):
    """The other side has a valid certificate, but for another name."""


def make_context(credentials: Credentials, *, server: bool) -> ssl.SSLContext:
    """Load the credentials for one role; raises `Problem` tls-files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    if server:
        context.num_tickets = 0  # nobody resumes, and nothing is then sent before the reply
    try:
        context.load_verify_locations(credentials.ca)
        # An encrypted key must fail here, not ask on a terminal.
        context.load_cert_chain(credentials.cert, credentials.key, password=lambda: "")
    except OSError as error:
        files = ", ".join(str(file) for file in credentials)
        raise Problem("tls-files", f"Cannot use {files}: {error}", "Check the certificate files") from error
    return context


def handshake(sock: ssl.SSLSocket, peer: str, timeout_s: float) -> None:
    """Shake hands within `timeout_s` and check who the other side is; raises OSError, `IdentityError`."""
    sock.settimeout(timeout_s)
    sock.do_handshake()
    check_identity(sock, peer)


def check_identity(sock: ssl.SSLSocket, peer: str) -> None:
    """Accept only a certificate that names `peer`, a DNS name or an IP address, letter for letter.

    Both roles check it so: OpenSSL checks names for clients only, and would take a wildcard.
    """
    names: list[str] = []
    certificate = sock.getpeercert() or {}
    for entry in certificate.get("subjectAltName", ()):
        kind, name = entry[0], str(entry[1])
        names.append(name)
        if (kind == "DNS" and name.lower() == peer.lower()) or (kind == "IP Address" and _same_ip(name, peer)):
            return
    raise IdentityError(f"its certificate names {names}, not {peer!r}")


def _same_ip(one: str, other: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_pton(family, one) == socket.inet_pton(family, other)
        except OSError:
            continue
    return False
