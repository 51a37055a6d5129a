"""Addresses of the gateway: parsing, listening, connecting."""

import grp
import os
import pwd
import socket
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vferry.model.address import with_port
from vferry.model.problem import Problem
from vferry.transfer.wire import SERVICE_NAME

DEFAULT_SERVICE = "memory"
BACKLOG = 64
CONNECT_S = 10.0
RETRY_S = 0.05
# What TCP holds that is not on its way yet counts as delivered to QEMU and lands in the guest's pause.
UNSENT_BYTES = 512 * 1024
ACCEPTING = 0x10000  # the kernel's flag of a listening socket


class TcpAddress(NamedTuple):
    """A host, by name or address, and a port; port 0 listens on any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return with_port(self.host, self.port)


class Owner(NamedTuple):
    """Who may open a unix socket besides root: the user, and the group where one is named."""

    uid: int
    gid: int
    mode: int


ROOT_ONLY = Owner(-1, -1, 0o600)


def parse_tcp(text: str) -> TcpAddress:
    """Read ``HOST:PORT`` or ``[IPV6]:PORT``; raises `Problem` address-invalid."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535 or (":" in host and not bracketed):
        raise Problem("address-invalid", f"{text!r} is not an address", "Give HOST:PORT, or [IPV6]:PORT")
    return TcpAddress(host[1:-1] if bracketed else host, int(port))


def parse_service(text: str) -> tuple[str, Path]:
    """Read ``[SERVICE=]unix:PATH``; raises `Problem` address-invalid."""
    name, separator, address = text.partition("=") if not text.startswith("unix:") else ("", "", text)
    service = name if separator else DEFAULT_SERVICE
    path = address.removeprefix("unix:")
    if not address.startswith("unix:/") or len(os.fsencode(path)) > 107 or not SERVICE_NAME.fullmatch(service):
        raise Problem(
            "address-invalid",
            f"{text!r} is not the address of a service",
            "Give unix:PATH or SERVICE=unix:PATH with an absolute path of at most 107 bytes",
        )
    return service, Path(path)


def parse_services(texts: Iterable[str]) -> dict[str, Path]:
    """Read several services; raises `Problem` address-invalid, or service-twice for a name given again."""
    services: dict[str, Path] = {}
    for service, path in map(parse_service, texts):
        if service in services:
            raise Problem("service-twice", f"The service {service!r} is given twice", "Name each service once")
        services[service] = path
    return services


def parse_owner(text: str) -> Owner:
    """Read ``USER`` (mode 0600) or ``USER:GROUP`` (mode 0660); raises `Problem` owner-unknown."""
    user, separator, group = text.partition(":")
    try:
        uid = pwd.getpwnam(user).pw_uid
        gid = grp.getgrnam(group).gr_gid if separator else -1
    except KeyError:
        raise Problem("owner-unknown", f"No user or group {text!r} on this host", "Give USER or USER:GROUP") from None
    return Owner(uid, gid, 0o660 if separator else 0o600)


class UnixListener:
    """A listening unix socket that nobody but its owner can open, removed from the file system by `close`."""

    def __init__(self, path: Path, owner: Owner = ROOT_ONLY) -> None:
        """Listen; raises `Problem` address-in-use or listen-failed."""
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._identity: tuple[int, int] | None = None
        try:
            _remove_stale(path)
            self._listen(owner)
        except OSError as error:
            self.close()
            raise _listen_problem(f"unix:{path}", error) from error
        except Problem:
            self.close()
            raise

    def _listen(self, owner: Owner) -> None:
        # The file takes the mode of its socket, so it is never open to others, not even for a moment.
        os.fchmod(self.socket.fileno(), owner.mode)
        self.socket.bind(str(self.path))
        self._identity = _identity(self.path)
        os.chown(self.path, owner.uid, owner.gid, follow_symlinks=False)
        self.path.chmod(owner.mode)  # the umask took its part
        self.socket.listen(BACKLOG)

    def close(self) -> None:
        """Stop listening, wake whoever waits in accept, remove the file unless it is another's by now."""
        _close_listening(self.socket)
        if self._identity and _identity(self.path) == self._identity:
            self.path.unlink(missing_ok=True)


class TcpListener:
    """A listening TCP socket; `address` tells the port really taken."""

    def __init__(self, address: TcpAddress) -> None:
        """Listen; raises `Problem` address-in-use or listen-failed."""
        try:
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            self.socket = socket.create_server(address, family=family, backlog=BACKLOG)
        except (OSError, UnicodeError) as error:
            raise _listen_problem(str(address), error) from error
        self.address = TcpAddress(*self.socket.getsockname()[:2])

    def close(self) -> None:
        """Stop listening and wake whoever waits in accept."""
        _close_listening(self.socket)


def connect_tcp(address: TcpAddress) -> socket.socket:
    """Connect within 10 s, or raise OSError."""
    return socket.create_connection(address, timeout=CONNECT_S)


def connect_unix(path: Path, pause: Callable[[float], bool]) -> socket.socket:
    """Connect to a unix socket that may not be there yet, within 10 s, or raise OSError.

    `pause` sleeps for the given seconds and returns true when it is time to give up.
    """
    deadline = time.monotonic() + CONNECT_S
    while True:
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            local.settimeout(0)
            local.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            local.close()
            if time.monotonic() > deadline or pause(RETRY_S):
                raise
        except OSError:
            local.close()
            raise
        else:
            local.settimeout(None)
            return local


def tune_tcp(sock: socket.socket, peer_timeout_s: int) -> None:
    """No waiting for small messages, little unsent data, and an idle dead peer noticed after `peer_timeout_s`.

    No TCP_USER_TIMEOUT: the kernel also counts against it a living peer whose window stays closed, that is a
    destination that takes no memory for a while. `vferry.transfer.liveness` tells the two apart.
    """
    third = max(1, peer_timeout_s // 3)
    for option, value in (
        (socket.TCP_NODELAY, 1),
        (socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES),
        (socket.TCP_KEEPIDLE, third),
        (socket.TCP_KEEPINTVL, third),
        (socket.TCP_KEEPCNT, 2),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _remove_stale(path: Path) -> None:
    """Remove a socket file that nobody listens on; raises `Problem` address-in-use, OSError."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise _in_use(path)
    except FileNotFoundError:
        return
    if _listens(path):
        raise _in_use(path)
    path.unlink()


def _listens(path: Path) -> bool:
    """Tell whether somebody listens there, without connecting: a gateway would carry that to its destination."""
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if fields[7:] == [str(path)] and int(fields[3], 16) & ACCEPTING:
            return True
    return False


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _close_listening(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _in_use(path: Path) -> Problem:
    return Problem("address-in-use", f"unix:{path} is in use", "Choose another path or end what listens there")


def _listen_problem(where: str, error: OSError | UnicodeError) -> Problem:
    return Problem("listen-failed", f"Cannot listen on {where}: {error}", "Choose another address")
