"""What a bridge is told of connections, as OpenFlow 1.5 and Open vSwitch have it, and what it may answer."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vferry.host import pipeline
from vferry.host.openvswitch import RefusedError
from vferry.host.pipeline import PacketIn, Pipeline, commit, tcp_from, to_controller, track
from vferry.model.connections import Way

NUMBER = 0x7666
BARRIER, DONE = bytes.fromhex("0614000800000000"), bytes.fromhex("0615000800000000")
HELLO, CONFIGURED = bytes.fromhex("0600000800000000"), bytes.fromhex("0609000c000000000000ffff")
NUMBERED = bytes.fromhex("0604001800000000" + "00002320" + "00000014" + "000000000000" + "7666")
OPENED = HELLO + CONFIGURED + NUMBERED + BARRIER


def packet_in(frame: bytes, *, cookie: int = 1, reason: int = 1, total: int | None = None) -> bytes:
    match = struct.pack("!HHII4x", 1, 12, 0x80000004, 7)
    body = struct.pack("!IHBBQ", 0xFFFFFFFF, len(frame) if total is None else total, reason, 0, cookie)
    body += match + bytes(2) + frame
    return struct.pack("!BBHI", 6, 10, 8 + len(body), 0) + body


@contextmanager
def bridge(root: Path, *answers: bytes) -> Iterator[bytearray]:
    """One that answers each barrier with the next of these, and then hangs up."""
    path, told = root / "br-int.mgmt", bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            wire, _ = listening.accept()
            with wire:
                for answer in answers:
                    before = told.count(BARRIER)
                    while told.count(BARRIER) == before:
                        told.extend(wire.recv(1 << 16))
                    wire.sendall(answer)
                while data := wire.recv(1 << 16):
                    told.extend(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield told
        thread.join(10)


def test_frames_and_flows_are_put_in(tmp_path: Path) -> None:
    way = Way(source="10.0.0.1", destination="10.0.0.2", ports=(4000, 80))
    match, action = tcp_from(7, way), to_controller(NUMBER)
    with bridge(tmp_path, DONE, DONE) as told, Pipeline(tmp_path / "br-int.mgmt", NUMBER) as made:
        made.put(b"frame", track(5))
        made.let_in(7, b"other")
        made.add_flow(match, action, cookie=0x99, priority=2000, ends_after_s=13)
        made.drop_flows(0x99, 0xFF)
        assert told == OPENED, "it goes together"
        made.barrier()
    parts = told.removeprefix(OPENED)
    kinds = []
    while parts:
        _, kind, length, _ = struct.unpack_from("!BBHI", parts)
        kinds.append((kind, length))
        del parts[:length]
    assert [kind for kind, _ in kinds] == [13, 13, 14, 14, 20]


def test_matches_and_actions_are_those_of_open_vswitch() -> None:
    """As Open vSwitch's own `ovs-ofctl parse-actions` reads them."""
    four = tcp_from(7, Way(source="10.0.0.1", destination="10.0.0.2", ports=(4000, 80)))
    assert four.hex() == (
        "00010033"
        "8000000400000007"
        "80000a020800"
        "8000140106"
        "800016040a000001"
        "800018040a000002"
        "80001a020fa0"
        "80001c020050"
        "0000000000"
    )
    six = tcp_from(7, Way(source="fd00::1", destination="fd00::2", ports=(4000, 80)))
    assert len(six) % 8 == 0
    assert "80000a0286dd" in six.hex()
    assert track(5).hex() == "ffff00180000232000230000000000000005ff0000000000"
    assert commit(5, 3, 0x77 << 64).hex() == (
        "ffff0040"
        "00002320"
        "0023"
        "0003"
        "00000000"
        "0005"
        "ff000000"
        "0000"
        "00190010"
        "0001d604"
        "00000003"
        "00000000"
        "00190018"
        "0001d810"
        "00000000000000770000000000000000"
    )
    served = (Way(source="10.0.0.2", destination=each, ports=(4000, 8080)) for each in ("10.0.0.9", "fd00::9"))
    turned = [commit(5, 0, 0, each).hex() for each in served]
    assert "ffff00180000232000240000000200110a0000091f900000" in turned[0]
    assert "ffff0028000023200024000000020014fd0000000000000000000000000000091f90000000000000" in turned[1]
    assert to_controller(NUMBER).hex() == "ffff0010000023200014ffff76660100"
    with pytest.raises(ValueError, match="no ports"):
        tcp_from(7, Way(source="10.0.0.1", destination="10.0.0.2"))


def test_what_flows_pass_is_heard_in_order_and_in_pieces(tmp_path: Path) -> None:
    said = packet_in(b"a" * 60) + bytes.fromhex("0602000800000000") + packet_in(b"b" * 61, cookie=2) + DONE
    said += packet_in(b"c") + packet_in(b"d", reason=0) + packet_in(b"e", total=100) + packet_in(b"f")
    with bridge(tmp_path, DONE, said) as told, Pipeline(tmp_path / "br-int.mgmt", NUMBER) as made:
        made.barrier()
        ends = time.monotonic() + 5
        heard = [made.passed(ends) for _ in range(4)]
        assert heard == [PacketIn(1, b"a" * 60), PacketIn(2, b"b" * 61), PacketIn(1, b"c"), PacketIn(1, b"f")]
        assert made.rest() == []
        assert made.passed(time.monotonic() + 0.01) is None
    assert bytes.fromhex("0603000800000000") in told, "an echo is answered"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (bytes.fromhex("0601000c0000000000010006"), RefusedError),
        (bytes.fromhex("0615000400000000"), ValueError),
        (DONE[:5], OSError),
    ],
)
def test_a_refusal_nonsense_and_an_end_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, error: type[Exception]
) -> None:
    monkeypatch.setattr(pipeline, "TIMEOUT_S", 0.2)
    with bridge(tmp_path, answer), pytest.raises(error), Pipeline(tmp_path / "br-int.mgmt", NUMBER):
        pass
