"""The ways to an agent, as Docker has them: ``unix:///path``, ``ssh://root@host[:port]``, ``https://host:port``."""

import errno
import re
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

import aiohttp

from vferry.host.certificates_tls import TlsFiles, client_context
from vferry.host.transport_ssh import SshTransport
from vferry.model.address import with_port
from vferry.model.problem import Exit, Problem

CONNECT_S = 10.0
DEFAULT_PORT = 7443
EXAMPLES = "unix:///run/vferry/agent.sock, ssh://root@host1, https://host1:7443"


class Transport(Protocol):
    """A way to one agent."""

    url: str
    server_name: str | None
    """The name that the agent's certificate must have."""

    def connector(self) -> aiohttp.BaseConnector: ...

    async def ready(self) -> None:
        """Sets up what the connector needs, again if it has gone. Problem ``host-unreachable``."""
        ...

    def explain(self, error: BaseException) -> tuple[str, str]:
        """What went wrong, and what to do about it."""
        ...

    async def aclose(self) -> None: ...


def find_transport(name: str, uri: str, tls: TlsFiles | None, directory: Path | None = None) -> Transport:
    """The transport that a URI asks for; `directory` is for its sockets. Problem ``uri-invalid``."""
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise _invalid(uri) from None
    if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
        return UnixTransport(name, parts.path)
    host = parts.hostname
    if host is None or not _plain(parts) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.:_-]*", host):
        raise _invalid(uri)
    if parts.scheme == "ssh" and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", parts.username or "root"):
        return SshTransport(name, parts.username or "root", host, port, directory)
    if parts.scheme == "https" and parts.username is None:
        return HttpsTransport(name, host, port or DEFAULT_PORT, tls)
    raise _invalid(uri)


class UnixTransport:
    """An agent on this machine, or one whose socket has been brought here."""

    url = "http://agent"
    server_name: str | None = None

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path

    def connector(self) -> aiohttp.BaseConnector:
        return aiohttp.UnixConnector(self.path)

    async def ready(self) -> None:
        """Nothing to set up."""

    def explain(self, error: BaseException) -> tuple[str, str]:
        remedy = "Start it: systemctl start vferry-agent"
        match getattr(error, "os_error", error):
            case FileNotFoundError():
                return f"there is no socket {self.path}", remedy
            case PermissionError():
                return f"you may not open {self.path}", "Be root, or use ssh://root@host"
            case ConnectionRefusedError():
                return f"nobody listens on {self.path}", remedy
        return f"the connection to {self.path} broke ({error or type(error).__name__})", remedy

    async def aclose(self) -> None:
        """Nothing to take down."""


class HttpsTransport:
    """Mutual TLS, straight to the agent's port; the agent's certificate must bear the host's name."""

    def __init__(self, name: str, host: str, port: int, tls: TlsFiles | None) -> None:
        self.name = name
        self.address = with_port(host, port)
        self.url = f"https://{self.address}"
        self.server_name: str | None = name
        self.tls = tls

    def connector(self) -> aiohttp.BaseConnector:
        if self.tls is None:
            raise Problem("certificate-missing", f"{self.url} needs a controller's certificate", "Use ssh://root@host")
        return aiohttp.TCPConnector(ssl=client_context(self.tls))

    async def ready(self) -> None:
        """Nothing to set up."""

    def explain(self, error: BaseException) -> tuple[str, str]:
        again = f"Add it over ssh, which gives it a certificate: vferry host add {self.name} ssh://root@HOST"
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            reason = getattr(error.certificate_error, "verify_message", "") or error.certificate_error
            return f"the certificate at {self.address} is not that of {self.name}: {str(reason).rstrip('.')}", again
        if isinstance(error, aiohttp.ServerDisconnectedError) or getattr(error, "errno", None) == errno.ECONNRESET:
            # In TLS 1.3 a client believes itself accepted before the server has looked at its certificate.
            cause = f"the agent at {self.address} hangs up, as it does on a controller whose certificate it rejects"
            return cause, again
        if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionRefusedError):
            return f"nobody listens on {self.address}", "Start it there: systemctl start vferry-agent"
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return f"{self.address} does not answer", "Check the name, the network and the firewall"
        if isinstance(error, aiohttp.ClientConnectorError):
            reason = error.os_error.strerror or error.os_error
            return f"no way to {self.address} ({reason})", "Check the name, the network and the firewall"
        return f"the connection to {self.address} broke ({error or type(error).__name__})", "Check that agent's log"

    async def aclose(self) -> None:
        """Nothing to take down."""


def _plain(parts: SplitResult) -> bool:
    return parts.path in ("", "/") and not parts.query and not parts.fragment and parts.password is None


def _invalid(uri: str) -> Problem:
    return Problem("uri-invalid", f"{uri} does not say how to reach an agent", f"Write one of: {EXAMPLES}")


def unreachable(name: str, cause: str, remedy: str) -> Problem:
    return Problem("host-unreachable", f"Host {name} cannot be reached: {cause}", remedy, exit=Exit.REFUSED, host=name)
