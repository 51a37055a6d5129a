"""The switch's end of a host's bond: what it reads, and what it answers."""

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.lab import lacp
from vferry.lab.lacp import AGGREGATES, COLLECTS, DISTRIBUTES, IN_SYNC, Party, Port

SHORTS, STATES = st.integers(0, 0xFFFF), st.integers(0, 0xFF)
PARTIES = st.builds(Party, SHORTS, st.binary(min_size=6, max_size=6), SHORTS, SHORTS, SHORTS, STATES)
OWN = Party(0x8000, bytes.fromhex("525400000900"), 1, 0x8000, 2, 0)
# As Linux's bonding driver sends it before it has heard anything: active, short timeout, may be aggregated.
LINUX = bytes.fromhex(
    "0180c2000002 525400000301 8809 0101"
    "0114 ffff 525400000101 0009 00ff 0002 47 000000"
    "0214 ffff 000000000000 0001 00ff 0001 00 000000"
    "0310 0000"
).ljust(124, b"\0")


def test_what_linux_says_is_read() -> None:
    assert lacp.read(LINUX) == Party(0xFFFF, bytes.fromhex("525400000101"), 9, 0xFF, 2, 0x47)


def test_the_answer_goes_to_the_bond_itself_and_tells_it_what_it_said() -> None:
    said = lacp.read(LINUX)
    assert said is not None
    frame = lacp.answer(OWN, said)
    assert len(frame) == len(LINUX) == lacp.LENGTH
    assert frame[:6] == said.system
    assert frame[6:12] == OWN.system
    assert frame[36:56] == bytes([lacp.PARTNER]) + LINUX[17:36]


@given(PARTIES, PARTIES)
def test_what_is_answered_can_be_read(own: Party, theirs: Party) -> None:
    assert lacp.read(lacp.answer(own, theirs)) == lacp.agreed(own, theirs)


@given(PARTIES)
def test_frames_pass_when_the_other_end_is_in_sync(theirs: Party) -> None:
    state = lacp.agreed(OWN, theirs).state
    assert state & (AGGREGATES | IN_SYNC) == AGGREGATES | IN_SYNC
    passes = COLLECTS | DISTRIBUTES
    assert state & passes == (passes if theirs.state & IN_SYNC else 0)


@given(st.binary(max_size=200))
def test_what_is_not_lacp_is_not_read(frame: bytes) -> None:
    assert lacp.read(frame[:14].ljust(14) + b"\0" + frame[15:]) is None


def test_half_a_frame_is_not_read() -> None:
    assert lacp.read(LINUX[:-1]) is None


@pytest.fixture
def wires() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for each in (ours, host):
        each.settimeout(0)
    with ours, host:
        yield ours, host


def test_what_is_new_is_answered_at_once_and_the_rest_in_its_time(wires: tuple[socket.socket, socket.socket]) -> None:
    ours, host = wires
    port = Port(OWN, "lo", 1, ours)
    port.tell()
    port.hear()
    for frame in (LINUX, LINUX, bytes(LINUX)[:40]):
        host.send(frame)
        port.hear()
    said = lacp.read(LINUX)
    assert said is not None
    assert host.recv(200) == lacp.answer(OWN, said)
    with pytest.raises(BlockingIOError):
        host.recv(200)
    port.tell()
    assert host.recv(200) == lacp.answer(OWN, said)


def test_it_ends_with_its_taps(wires: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = wires
    lo = socket.if_nametoindex("lo")
    assert Port(OWN, "lo", lo, ours).there
    assert not Port(OWN, "no-such-tap", lo, ours).there
    lacp.speak([Port(OWN, "lo", lo + 1, ours)])
