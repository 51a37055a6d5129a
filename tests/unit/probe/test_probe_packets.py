"""Probes as bytes."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from vferry.probe import packets

SESSION = b"session0"
IP_HEADER = bytes([0x45]) + bytes(19)


def reply_to(request: bytes, kind: packets.Kind) -> bytes:
    return bytes([kind.reply]) + request[1:]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**16 - 1), st.sampled_from([packets.V4, packets.V6]))
def test_an_answer_carries_the_whole_sequence_number(sequence: int, ident: int, kind: packets.Kind) -> None:
    request = packets.echo(kind, ident, SESSION, sequence)
    header = IP_HEADER if kind is packets.V4 else b""
    assert packets.answered(header + reply_to(request, kind), kind, SESSION) == sequence
    assert packets.answered(header + reply_to(request, kind), kind, b"another0") is None
    assert packets.answered(header + request, kind, SESSION) is None


@given(st.integers(0, 2**64 - 1))
def test_the_checksum_of_icmp_makes_the_packet_sum_to_zero(sequence: int) -> None:
    packet = packets.echo(packets.V4, 77, SESSION, sequence)
    assert packets.checksum(packet) == 0
    assert len(packet) == 64


@given(st.binary(max_size=120))
def test_what_others_send_is_no_answer(noise: bytes) -> None:
    assert packets.answered(noise, packets.V4, SESSION) is None
    assert packets.answered(noise, packets.V6, SESSION) is None
    assert not packets.arp_answers(noise, bytes(6), bytes([192, 0, 2, 1]))


def test_only_replies_to_arp_probes_answer() -> None:
    ours, target = bytes.fromhex("020000000001"), bytes([192, 0, 2, 1])
    request = packets.arp_probe(ours, target)
    reply = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 2, b"guest!", target, ours, bytes(4))
    to_the_kernel = reply[:24] + bytes([192, 0, 2, 9])
    assert packets.arp_answers(reply + bytes(18), ours, target)
    assert not packets.arp_answers(request, ours, target)
    assert not packets.arp_answers(to_the_kernel, ours, target)
