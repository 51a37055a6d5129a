"""Two hosts' gateways as the agents start them, with a stream between them that is compressed."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from fake_libvirt import FakeLibvirt
from msgspec import structs

from vferry.host.api import GatewayStatistics, StartReceiving, StartSending
from vferry.host.gateways import Gateways, places
from vferry.host.hypervisor import Hypervisor
from vferry.model.compression import Codec
from vferry.model.host import MigrationEndpoint

OPERATION = "op-1"
MEMORY = b"".join(b"page %06d of a guest" % number + bytes(4076) for number in range(1000))
WAIT_S = 20.0


class Pair:
    """The gateways of a source, host1, and of a destination, host2."""

    def __init__(self, runtime: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.authority = trustme.CA()
        self.endpoint = MigrationEndpoint(address="127.0.0.1", ports=(port, port))
        self.runtime = runtime
        self.source, self.destination = self._host("host1"), self._host("host2")

    def carry(self, wanted: StartSending) -> tuple[bytes, GatewayStatistics, GatewayStatistics]:
        """What arrives of a guest's memory, and what both gateways say of it."""
        receive = StartReceiving(peer="host1", delta_memory=wanted.delta_memory)
        receiving = self.destination.receive(OPERATION, receive)
        self.source.send(OPERATION, structs.replace(wanted, port=receiving.port, token=receiving.token))
        arrived = self._through()
        return arrived, self.source.stop(OPERATION), self.destination.stop(OPERATION)

    def close(self) -> None:
        self.source.release(OPERATION)
        self.destination.release(OPERATION)

    def _through(self) -> bytes:
        there, here = (places(self.runtime / name, OPERATION).memory for name in ("host2", "host1"))
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as qemu:
            for end in (listener, qemu):
                end.settimeout(WAIT_S)
            listener.bind(str(there))
            listener.listen()
            qemu.connect(str(here))
            incoming, _ = listener.accept()
            with incoming:
                writing = threading.Thread(target=self._write, args=(qemu,))
                writing.start()
                arrived = incoming.makefile("rb").read()
                writing.join()
        return arrived

    def _write(self, qemu: socket.socket) -> None:
        qemu.sendall(MEMORY)
        qemu.shutdown(socket.SHUT_WR)

    def _host(self, name: str) -> Gateways:
        pki = self.runtime / name / "pki"
        pki.mkdir(parents=True)
        issued = self.authority.issue_cert(name)
        self.authority.cert_pem.write_to_path(pki / "ca.crt")
        issued.cert_chain_pems[0].write_to_path(pki / "host.crt")
        issued.private_key_pem.write_to_path(pki / "host.key")
        hypervisor = Hypervisor(library=FakeLibvirt(uid=os.geteuid(), gid=os.getegid()))
        return Gateways(self.endpoint, hypervisor, pki, self.runtime / name)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    pair.close()


@pytest.mark.parametrize(("codec", "streams"), [(Codec.ZSTD, 1), (Codec.LZ4, 3)])
def test_what_arrives_is_the_same_and_what_went_over_the_wire_is_less(pair: Pair, codec: Codec, streams: int) -> None:
    wanted = StartSending(
        peer="host2", address="127.0.0.1", port=0, token="", codec=codec, streams=streams, delta_memory=8
    )
    arrived, sent, received = pair.carry(wanted)
    assert arrived == MEMORY
    assert sent.compressed == received.compressed
    assert sent.compressed is not None
    assert sent.compressed.stream_bytes == len(MEMORY)
    assert (sent.compressed.ratio or 0) > 10
    assert sent.compressed.wire_bytes <= sent.wire_bytes < len(MEMORY) / 10
    assert set(sent.compressed.codecs) == {codec.value}


def test_without_a_codec_it_goes_as_it_is(pair: Pair) -> None:
    arrived, sent, received = pair.carry(StartSending(peer="host2", address="127.0.0.1", port=0, token=""))
    assert arrived == MEMORY
    assert sent.compressed is received.compressed is None
    assert sent.wire_bytes == len(MEMORY)
