"""The peer in a VLAN: tags come and go."""

import socket
import threading

from hypothesis import given
from hypothesis import strategies as st

from vferry.lab import vlan

FRAMES = st.binary(min_size=14, max_size=1514)
IDS = st.integers(1, 4094)


@given(FRAMES, IDS)
def test_a_tag_comes_off_again(frame: bytes, number: int) -> None:
    assert vlan.untag(vlan.tag(frame, number), number) == frame


@given(FRAMES, IDS, IDS)
def test_another_vlan_s_frames_are_not_ours(frame: bytes, number: int, other: int) -> None:
    assert (vlan.untag(vlan.tag(frame, number), other) is None) == (number != other)


def test_untagged_frames_are_not_ours() -> None:
    assert vlan.untag(bytes(12) + b"\x08\x00" + bytes(46), 7) is None


def test_the_priority_in_a_tag_does_not_matter() -> None:
    assert vlan.untag(bytes(12) + b"\x81\x00\xe0\x07\x08\x00x", 7) == bytes(12) + b"\x08\x00x"


def test_frames_pass_both_ways_until_a_device_is_gone() -> None:
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    (device, device_end), (port, port_end) = pairs

    thread = threading.Thread(target=vlan.relay, args=(device.fileno(), port.fileno(), 7), daemon=True)
    thread.start()
    frame = bytes(12) + b"\x08\x00" + b"hello"
    device_end.send(frame)
    assert port_end.recv(2000) == vlan.tag(frame, 7)
    port_end.send(frame)  # untagged: dropped
    port_end.send(vlan.tag(frame, 7))
    assert device_end.recv(2000) == frame
    device_end.close()
    thread.join(5)
    assert not thread.is_alive()
    for end in (device, port, port_end):
        end.close()
