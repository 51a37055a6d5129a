"""What a bridge is told of connections, as OpenFlow 1.5 and Open vSwitch have it, and what it may answer."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from vferry.host import pipeline
from vferry.host.gateway_flows import flows
from vferry.host.openvswitch import RefusedError
from vferry.host.pipeline import PacketIn, Pipeline, commit, tcp_from, to_controller, track
from vferry.model.connections import Way
from vferry.model.relay import RelayGateway

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


GATEWAY = RelayGateway(bridge="relay0", vlan=7, remote="192.0.2.9", label=100007)


def test_labels_are_put_and_taken_off_as_open_vswitch_s_own_tool_asks_for_it() -> None:
    """As `ovs-ofctl -O OpenFlow15` of 3.1 says on the wire, but for the order of a match's fields, which is free."""
    out, back = flows(GATEWAY, 3, 4)
    assert [each.hex() for each in out] == [
        "0001000c800000040000000300000000",
        "ffff001000002320002e0000000188470019001080004404000186a70000000000000010000000040000000000000000",
    ]
    assert [each.hex() for each in back] == [
        "0001001f8000000400000004" + "80000a028847" + "80004404000186a7" + "8000480101" + "00",
        "ffff001000002320002f00000000fffeffff001000002320002f00000000000000000010000000030000000000000000",
    ]


def test_a_gateway_s_address_is_answered_for_as_open_vswitch_s_own_tool_asks_for_it() -> None:
    """So are the priority and the times of what is learnt, which are ours."""
    asked, sent, back = flows(replace(GATEWAY, address="10.0.0.254"), 7, 4)
    assert asked[0].hex() == "0001002080000004" + "00000007" + "80000a020806" + "80002a020001" + "80002e040a0000fe"
    learn = (
        "ffff006800002320002d0e1000000064000000000000000700000100000000000000100000000000"
        "20100800000006020000202000000007000100040000"
    )
    rest = "1010000000020000000000000000"
    of_arp = learn + "002000002004000000001004000008300001220600000000020600001010000000020000000000000000"
    of_ip = learn + "002000000e0400000000100400000830000004060000000002060000" + rest
    assert asked[1].hex() == of_arp + (
        "001c0018003000000000000080000806800006060000000000190010800008060276660000070000"
        "0019001080002a020002000000000000001c0018003000000000000080003006800032060000000"
        "0001c0018002000000000000080002c0480002e0400000000"
        "00190010800030060276660000070000" + "0019001080002c040a0000fe00000000" + "00000010fffffff80000000000000000"
    )
    assert sent[0].hex() == "0001001c80000004" + "00000007" + "80000606027666000007" + "80000a020800" + "00000000"
    assert sent[1].hex() == of_ip + "0018000800000000" + "ffff001000002320002f00000000fffe" + (
        "ffff001000002320002e0000000188470019001080004404000186a700000000" + "00000010000000040000000000000000"
    )
    assert back[1].hex() == (
        "0014000808000000" + "00190010000100040000000700000000" + "00190010800008060276660000070000"
        "ffff001000002320000efff801000000"
    )


def test_the_flows_of_a_port_are_those_in_and_out_of_it(tmp_path: Path) -> None:
    with bridge(tmp_path, DONE, DONE) as told, Pipeline(tmp_path / "br-int.mgmt", NUMBER) as made:
        made.drop_flows_of(3)
        made.drop_flows_of(3, table=0)
        made.barrier()
    head = "060e{}00000000" + "00" * 16 + "0003" + "00" * 6 + "ffffffff{}ffffffff00000000"
    head = head.replace("00" * 16 + "0003", "00" * 16 + "ff03")
    of, to = head.format("0040", "ffffffff"), head.format("0038", "00000003")
    asked = told.removeprefix(OPENED)
    assert asked[:0x40].hex() == of + "0001000c800000040000000300000000"
    assert asked[0x40 : 0x40 + 0x38].hex() == to + "0001000400000000"
    assert asked[0x78 : 0x78 + 0x40].hex() == of.replace("ff03", "0003") + "0001000c800000040000000300000000"


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
