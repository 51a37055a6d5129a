"""A frame that comes into a bridge by a guest's port: what the bridge is told, and what it may answer."""

import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vferry.host.announcement import rarp
from vferry.host.openflow import Inlet, packet_out
from vferry.host.openvswitch import OpenVSwitch

MAC = "52:54:00:aa:00:0b"
HELLO, BARRIER = bytes.fromhex("0600000800000000"), bytes.fromhex("0614000800000000")
FRAME = rarp(MAC)


@contextmanager
def bridge(root: Path, *answers: bytes) -> Iterator[bytearray]:
    """One that takes what it is told, answers once it was told all, and hangs up."""
    path = root / "run/openvswitch/br-int.mgmt"
    path.parent.mkdir(parents=True)
    told = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            wire, _ = listening.accept()
            with wire:
                while not told.endswith(BARRIER):
                    told.extend(wire.recv(1000))
                for answer in answers:
                    wire.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield told
        thread.join(10)


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, int]]:
    """What Open vSwitch's database has of ports."""
    ports = {"vfg525400aa000b": ("br-int", 0x1234)}
    monkeypatch.setattr(OpenVSwitch, "find", lambda _self, port: ports.get(port))
    return ports


SAID = bytes.fromhex("06000010000000010001000800000040" + "0615000800000000")
"""As Open vSwitch says it: hello, with the versions that it speaks, and that all was done."""


def put_in(root: Path) -> int:
    inlet = Inlet(root, "vfg525400aa000b")
    try:
        return inlet.send(FRAME)
    finally:
        inlet.close()


def test_the_frame_goes_through_the_tables_as_if_it_had_come_by_the_port(tmp_path: Path) -> None:
    with bridge(tmp_path, SAID) as told:
        assert put_in(tmp_path) == len(FRAME)
    match, action = "0001000c8000000400001234" + "00000000", "00000010fffffff900000000" + "00000000"
    body = bytes.fromhex("ffffffff00100000" + match + action) + FRAME
    packet = bytes.fromhex(f"060d{8 + len(body):04x}00000000") + body
    assert packet_out(0x1234, FRAME) == packet
    assert told == HELLO + packet + BARRIER


def test_an_answer_may_come_in_pieces(tmp_path: Path) -> None:
    with bridge(tmp_path, *(SAID[at : at + 3] for at in range(0, len(SAID), 3))):
        assert put_in(tmp_path) == len(FRAME)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (SAID[:16] + bytes.fromhex("0601000c0000000000010006"), errno.EPROTO),
        (SAID[:16], errno.ECONNRESET),
        (SAID[:20], errno.ECONNRESET),
    ],
)
def test_a_refusal_is_told(tmp_path: Path, answer: bytes, code: int) -> None:
    with bridge(tmp_path, answer), pytest.raises(OSError, match="bridge") as caught:
        put_in(tmp_path)
    assert caught.value.errno == code


def test_nobody_is_waited_for_longer_than_agreed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vferry.host.openvswitch.TIMEOUT_S", 0.05)
    path = tmp_path / "run/openvswitch/br-int.mgmt"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(TimeoutError):
            put_in(tmp_path)


def test_without_the_port_or_its_bridge_that_is_said(tmp_path: Path, found: dict[str, tuple[str, int]]) -> None:
    with pytest.raises(FileNotFoundError):
        put_in(tmp_path)
    found.clear()
    with pytest.raises(OSError, match="vfg525400aa000b") as caught:
        put_in(tmp_path)
    assert caught.value.errno == errno.ENODEV
