"""What is seen of a guest from outside, here of this machine."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from vferry.controller.operations import RUNNING, OperationFolder, OperationState
from vferry.controller.probing import Seen, probing
from vferry.controller.state import State
from vferry.model.report import Phase

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sending packets needs root")


@pytest.fixture
def port() -> Iterator[int]:
    """Of a service that echoes one connection."""

    def serve() -> None:
        with suppress(OSError):
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(4096):
                    connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


async def seen(folder: Path, **asked: object) -> tuple[Seen, list[int]]:
    told: list[int] = []
    fields = {"operation": "op-1", "guest": "guest1", "source": "host1", "destination": "host2"} | asked
    operation = OperationState(**fields, status=RUNNING, phase=Phase.CHECK, started="")  # type: ignore[arg-type]
    about = probing(State(root=folder), OperationFolder(folder), operation, lambda lost, _: told.append(lost))
    async with about as stop:
        return await stop(), told


async def test_packets_and_a_connection_are_seen(tmp_path: Path, port: int) -> None:
    found, told = await seen(tmp_path, probe_address="127.0.0.1", probe_tcp=port)
    assert (found.note, found.tcp_note) == (None, None)
    assert found.probes is not None
    assert len(found.probes.sent) > 100
    assert found.tcp is not None
    assert found.tcp.port == port
    assert found.tcp.echoed == found.tcp.sent > 5
    assert told == [0]


async def test_without_a_listener_the_packets_are_seen_all_the_same(tmp_path: Path) -> None:
    found, _ = await seen(tmp_path, probe_address="127.0.0.1", probe_tcp=1)
    assert found.probes is not None
    assert found.note is None
    assert found.tcp is None
    assert "No TCP connection to 127.0.0.1, port 1, could be made: Connection refused" in str(found.tcp_note)


async def test_a_connection_is_seen_where_no_packet_is(tmp_path: Path, port: int) -> None:
    found, _ = await seen(tmp_path / "missing", probe_address="127.0.0.1", probe_tcp=port)
    assert found.probes is None
    assert "The record cannot be written" in str(found.note)
    assert found.tcp is not None
    assert found.tcp.echoed == found.tcp.sent > 5


@pytest.mark.parametrize(
    ("asked", "why"),
    [({"probe_address": "127.0.0.1", "measured": False}, "--no-probe"), ({}, "the guest's address is not known")],
)
async def test_what_is_not_measured_is_said(tmp_path: Path, asked: dict[str, object], why: str) -> None:
    found, told = await seen(tmp_path, probe_tcp=1, **asked)
    assert why in str(found.note)
    assert (found.probes, found.tcp, found.tcp_note, told) == (None, None, None, [])
