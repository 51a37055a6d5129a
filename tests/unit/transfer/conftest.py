"""Gateway pairs over loopback and unix sockets, and the check that nothing of them is left."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from vferry.model.compression import DELTA_MIB
from vferry.transfer.compression import MIB, UNCOMPRESSED, Compression
from vferry.transfer.endpoint import TcpAddress
from vferry.transfer.gateway import Security
from vferry.transfer.receiving import ReceivingGateway
from vferry.transfer.sending import SendingGateway
from vferry.transfer.tls import Credentials, make_context

WAIT_S = 10.0
# As in the gateway, OpenSSL is ready before libqatzip is used: after a thousand calls of it, it can no longer start.
ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Authority:
    """A certificate authority whose certificates are files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.ca = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca)

    def issue(self, name: str) -> Credentials:
        """Make a certificate for one DNS name or IP address."""
        leaf = self._authority.issue_cert(name, key_type=trustme.KeyType.ECDSA)
        cert, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        leaf.cert_chain_pems[0].write_to_path(cert)
        leaf.private_key_pem.write_to_path(key)
        return Credentials(self.ca, cert, key)

    def client(self, name: str, peer: str, token: bytes = b"") -> Security:
        """Be the sending gateway `name` that wants `peer`."""
        return Security(make_context(self.issue(name), server=False), peer, token)

    def server(self, name: str, peer: str, token: bytes = b"") -> Security:
        """Be the receiving gateway `name` that wants `peer`."""
        return Security(make_context(self.issue(name), server=True), peer, token)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def no_open_files() -> Iterator[None]:
    """Fail a test that leaves an open file behind."""
    files = open_files()
    yield
    assert open_files() <= files


class Pair(NamedTuple):
    """A running gateway pair with both ends of the way: `source` connects here, `destination` listens there."""

    send: SendingGateway
    receive: ReceivingGateway
    source: Path
    destination: socket.socket
    log: list[str]

    def connect(self) -> socket.socket:
        """Open the near end of a connection."""
        near = socket.socket(socket.AF_UNIX)
        near.settimeout(WAIT_S)
        near.connect(str(self.source))
        return near

    def open(self) -> tuple[socket.socket, socket.socket]:
        """Open a connection and return both its ends, once it is carried."""
        near = self.connect()
        far, _ = self.destination.accept()
        far.settimeout(WAIT_S)
        near.sendall(b"?")
        assert far.recv(1) == b"?"
        return near, far

    def refused(self, reason: str) -> None:
        """Open a connection that must be refused, and check that a gateway says why."""
        with self.connect() as near, suppress(ConnectionResetError):
            assert near.recv(1) == b""
        wait_for(lambda: any(reason in line for line in self.log))


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until `condition` is true."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


PLAIN = Security(None, "")
MakePair = Callable[..., Pair]


@pytest.fixture(params=["plaintext", "tls"])
def pair(request: pytest.FixtureRequest, make_pair: MakePair, authority: Authority) -> Pair:
    """A pair that works, in plaintext and with TLS."""
    if request.param == "plaintext":
        return make_pair(PLAIN, PLAIN)
    return make_pair(authority.client("source", "destination"), authority.server("destination", "source"))


@pytest.fixture
def make_pair(tmp_path: Path) -> Iterator[MakePair]:
    gateways: list[SendingGateway | ReceivingGateway] = []
    sockets: list[socket.socket] = []

    def make(
        client: Security,
        server: Security,
        service: str = "memory",
        hold: Callable[[str], None] | None = None,
        compression: Compression = UNCOMPRESSED,
        receiver_delta: int = DELTA_MIB * MIB,
    ) -> Pair:
        log: list[str] = []
        source, target = tmp_path / "source.sock", tmp_path / "destination.sock"
        destination = socket.socket(socket.AF_UNIX)
        sockets.append(destination)
        destination.settimeout(WAIT_S)
        destination.bind(str(target))
        destination.listen(64)
        services = {"memory": target}
        receive = ReceivingGateway(
            TcpAddress("127.0.0.1", 0), services, server, log=log.append, delta_bytes=receiver_delta
        )
        receive.start()
        gateways.append(receive)
        held: dict[str, Any] = {"hold": [service], "lost": hold} if hold else {}
        services = {service: source}
        send = SendingGateway(services, receive.address, client, log=log.append, compression=compression, **held)
        send.start()
        gateways.append(send)
        return Pair(send, receive, source, destination, log)

    yield make
    for gateway in gateways:
        gateway.stop()
    for sock in sockets:
        sock.close()


def client_context(authority: Authority) -> ssl.SSLContext:
    """A TLS client without a certificate of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.ca)
    return context
