"""Addresses and listening sockets."""

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from vferry.model.problem import Problem
from vferry.transfer.endpoint import (
    Owner,
    TcpAddress,
    TcpListener,
    UnixListener,
    connect_unix,
    parse_owner,
    parse_services,
    parse_tcp,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host2:7001", TcpAddress("host2", 7001)),
        ("192.0.2.2:0", TcpAddress("192.0.2.2", 0)),
        ("[2001:db8::2]:7001", TcpAddress("2001:db8::2", 7001)),
    ],
)
def test_a_tcp_address_is_read_and_written(text: str, address: TcpAddress) -> None:
    assert parse_tcp(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["", "host", ":1", "host:", "host:x", "host:65536", "2001:db8::2:1", "host:-1", "h:²"])
def test_what_is_no_tcp_address_is_refused(text: str) -> None:
    with pytest.raises(Problem, match="is not an address"):
        parse_tcp(text)


def test_services_are_read() -> None:
    assert parse_services(["unix:/a=b.sock"]) == {"memory": Path("/a=b.sock")}
    assert parse_services(["control=unix:/c", "memory=unix:/m"]) == {"control": Path("/c"), "memory": Path("/m")}


@pytest.mark.parametrize("text", ["", "/a", "unix:a", "Memory=unix:/a", "=unix:/a", "unix:/" + "a" * 107])
def test_what_is_no_service_is_refused(text: str) -> None:
    with pytest.raises(Problem) as caught:
        parse_services([text])
    assert caught.value.code == "address-invalid"


def test_a_service_given_twice_is_refused() -> None:
    with pytest.raises(Problem) as caught:
        parse_services(["unix:/a", "memory=unix:/b"])
    assert caught.value.code == "service-twice"


def test_owners_are_looked_up() -> None:
    assert parse_owner("root") == Owner(0, -1, 0o600)
    assert parse_owner("root:root") == Owner(0, 0, 0o660)
    with pytest.raises(Problem):
        parse_owner("nobody-of-that-name")


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_a_unix_socket_is_its_owners_alone_and_goes(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.sock"
    listener = UnixListener(path, Owner(os.getuid(), os.getgid(), mode))
    assert stat.S_IMODE(path.stat().st_mode) == mode
    listener.close()
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    listener = UnixListener(path)
    with pytest.raises(Problem) as caught:
        UnixListener(path)
    assert caught.value.code == "address-in-use"
    assert path.exists()
    listener.close()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(Problem):
        UnixListener(path)
    assert path.read_text() == "data"


def test_a_listener_leaves_anothers_socket_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    listener = UnixListener(path)
    path.unlink()
    other = UnixListener(path)
    listener.close()
    assert path.exists()
    other.close()


def test_a_tcp_port_in_use_is_a_problem() -> None:
    listener = TcpListener(TcpAddress("127.0.0.1", 0))
    with pytest.raises(Problem) as caught:
        TcpListener(listener.address)
    assert caught.value.code == "listen-failed"
    listener.close()


def test_connecting_waits_for_the_socket_to_come(tmp_path: Path) -> None:
    path = tmp_path / "late.sock"
    late = socket.socket(socket.AF_UNIX)
    pauses = []

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        if len(pauses) == 1:
            late.bind(str(path))  # there, and still refusing
        if len(pauses) == 2:
            late.listen(1)
        return False

    connect_unix(path, pause).close()
    assert len(pauses) == 2
    late.close()


def test_connecting_can_be_given_up(tmp_path: Path) -> None:
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(FileNotFoundError):
        connect_unix(tmp_path / "never.sock", stopping.wait)
