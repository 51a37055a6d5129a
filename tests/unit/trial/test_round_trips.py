"""Round trips of the bench: what is sent, what is said of them, and the NICs, with a stand-in for the switch."""

import mmap
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from vferry.host.announcement import checksum
from vferry.model.problem import Problem
from vferry.trial import round_trips as tried
from vferry.trial.ends import End
from vferry.trial.round_trips import Pair, figures, packet, round_trips
from vferry.trial.virtio_nic import RECEIVE, SEND, VirtioNic

PATIENCE_S = 10.0


class Peer(threading.Thread):
    """The other side of a NIC by vhost-user, as far as one needs it (virtio 1.2, section 2.7)."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="peer")
        self._path = path
        self.queues: dict[int, tuple[int, int, int]] = {}
        self.ready = threading.Event()
        self._counts = {RECEIVE: 0, SEND: 0}

    def run(self) -> None:
        ends = time.monotonic() + PATIENCE_S
        wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        while wire.connect_ex(str(self._path)) and time.monotonic() < ends:
            time.sleep(0.01)
        with wire:
            while not self.ready.is_set():
                head, files, _, _ = socket.recv_fds(wire, 12, 1)
                if not head:
                    return
                number, _, length = struct.unpack("<III", head)
                self._told(number, wire.recv(length) if length else b"", files)

    def _told(self, number: int, body: bytes, files: list[int]) -> None:
        if number == 5:
            _, _, begin, length, self.address, _ = struct.unpack("<IIQQQQ", body)
            assert begin == 0
            self.memory = mmap.mmap(files[0], length)
        if number == 9:
            queue, _, descriptors, used, available, _ = struct.unpack("<IIQQQQ", body)
            self.queues[queue] = (descriptors - self.address, available - self.address, used - self.address)
        if number == 12 and body[0] == SEND:
            self.ready.set()

    def take(self) -> bytes | None:
        """What the NIC has sent, with its header."""
        found = self._next(SEND)
        if found is None:
            return None
        place, length = found
        frame = bytes(self.memory[place : place + length])
        self._back(SEND, 0)
        return frame

    def bring(self, frame: bytes) -> None:
        place, length = self._next(RECEIVE) or (0, 0)
        assert len(frame) <= length, "the NIC has given no buffer"
        self.memory[place : place + len(frame)] = frame
        self._back(RECEIVE, len(frame))

    def _next(self, queue: int) -> tuple[int, int] | None:
        descriptors, available, _ = self.queues[queue]
        count = self._counts[queue]
        if struct.unpack_from("<H", self.memory, available + 2)[0] == count & 0xFFFF:
            return None
        (self._at,) = struct.unpack_from("<H", self.memory, available + 4 + 2 * (count % 16))
        place, length = struct.unpack_from("<QI", self.memory, descriptors + 16 * self._at)
        return place, length

    def _back(self, queue: int, length: int) -> None:
        used = self.queues[queue][2]
        struct.pack_into("<II", self.memory, used + 4 + 8 * (self._counts[queue] % 16), self._at, length)
        self._counts[queue] += 1
        struct.pack_into("<H", self.memory, used + 2, self._counts[queue] & 0xFFFF)


@contextmanager
def switched(folder: Path, passes: Callable[[bytes], bool]) -> Iterator[Pair]:
    """Two NICs, and a switch between them that takes some frames from one to the other, and a broadcast with each."""
    ends = [End(folder / f"{at}.sock") for at in range(2)]
    peers = [Peer(end.path) for end in ends]
    ended = threading.Event()

    def forward() -> None:
        while not ended.is_set():
            for at, peer in enumerate(peers):
                if (frame := peer.take()) is not None and passes(frame[12:]):
                    peers[1 - at].bring(bytes(12) + b"\xff" * 60)
                    peers[1 - at].bring(frame)

    forwarding = threading.Thread(target=forward, name="switch")
    with ExitStack() as stack:
        for peer in peers:
            peer.start()
            stack.callback(peer.join)
        first, second = (stack.enter_context(VirtioNic(end, PATIENCE_S)) for end in ends)
        assert all(peer.ready.wait(PATIENCE_S) for peer in peers)
        forwarding.start()
        stack.callback(forwarding.join)
        stack.callback(ended.set)
        yield Pair((first, second))


def test_packets_go_round_for_longer_than_the_queues_are(tmp_path: Path) -> None:
    with switched(tmp_path, lambda _: True) as pair:
        pair.settle()
        packets = packet(0, 1500), packet(1, 1500)
        assert all(pair.go(packets) is not None for _ in range(50))
        assert all(took > 0 for took in pair.measured(64, 0.01))


def test_a_packet_that_is_lost_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tried, "LOST_S", 0.05)
    lost = iter([False, True, True])
    with switched(tmp_path, lambda _: next(lost)) as pair:
        assert pair.go((packet(0, 64), packet(1, 64))) is None
        monkeypatch.setattr(tried, "LOST_S", PATIENCE_S)
        assert pair.go((packet(0, 64), packet(1, 64))) is not None


def test_who_is_not_come_to_says_so(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError), VirtioNic(End(tmp_path / "alone.sock"), 0.01):
        pass


def test_without_a_path_it_is_a_problem(tmp_path: Path) -> None:
    ends = End(tmp_path / "none" / "0"), End(tmp_path / "none" / "1")
    with pytest.raises(Problem, match="No packet goes round"):
        round_trips((0, 0), ends, [], [64], 0.1)


@pytest.mark.parametrize("size", [64, 512, 1500])
def test_a_packet_is_ipv4_of_this_size(size: int) -> None:
    frame = packet(0, size)
    assert len(frame) == size
    assert frame[:14].hex() == "020000000002" + "020000000001" + "0800"
    assert checksum(frame[14:34]) == 0
    assert struct.unpack("!H", frame[16:18])[0] == size - 14
    assert frame[26:34] == bytes((198, 18, 0, 1, 198, 18, 0, 2))
    assert struct.unpack("!HHH", frame[34:40]) == (9, 9, size - 34)


@pytest.mark.parametrize(
    ("took", "median", "p99"),
    [([5000], 5.0, 5.0), ([1000, 3000], 2.0, 3.0), (list(range(1000, 101_000, 1000)), 50.5, 99.0)],
)
def test_the_middle_and_what_one_of_a_hundred_exceeds(took: list[int], median: float, p99: float) -> None:
    assert figures(took) == {"rtt_us_median": median, "rtt_us_p99": p99}
