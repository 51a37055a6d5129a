"""Telling a dead peer from one that takes no data."""

import socket
import time
from contextlib import suppress

import pytest

from vferry.transfer.endpoint import tune_tcp
from vferry.transfer.liveness import TCP_INFO, PeerWatch


class Kernel(socket.socket):
    """A socket whose TCP information a test sets."""

    state = 1
    probes = 0
    unacked = 0
    sent_age_ms = 0
    answer_age_ms = 0

    def getsockopt(self, *_: object) -> bytes:  # type: ignore[override]
        words = [0] * 13
        words[4], words[9], words[11], words[12] = self.unacked, self.sent_age_ms, 10**6, self.answer_age_ms
        return TCP_INFO.pack(self.state, 0, 0, self.probes, 0, 0, 0, 0, *words)


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("vferry.transfer.liveness.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize("kind", ["probes", "unacked"])
def test_a_peer_that_answers_nothing_is_dead_after_the_timeout(clock: Clock, kind: str) -> None:
    with Kernel() as kernel:
        setattr(kernel, kind, 1)
        kernel.answer_age_ms = 1_500
        watch = PeerWatch(kernel, 15)
        assert not watch.dead()
        clock.now += 14
        assert not watch.dead()
        clock.now += 1
        assert watch.dead()


def test_a_peer_that_answered_in_between_lives(clock: Clock) -> None:
    with Kernel() as kernel:
        kernel.probes = 1
        watch = PeerWatch(kernel, 15)
        for _ in range(10):
            clock.now += 10
            kernel.answer_age_ms += 10_000
            assert not watch.dead()
            kernel.answer_age_ms = 100
            assert not watch.dead()


def test_a_peer_that_has_nothing_to_answer_lives(clock: Clock) -> None:
    with Kernel() as kernel:
        kernel.answer_age_ms = 100_000
        kernel.unacked, kernel.sent_age_ms = 1, 100_000  # answered, though not acknowledged: a closed window
        watch = PeerWatch(kernel, 15)
        for _ in range(10):
            clock.now += 10
            assert not watch.dead()


def test_a_connection_that_the_kernel_gave_up_is_dead() -> None:
    with Kernel() as kernel:
        kernel.state = 7
        assert PeerWatch(kernel, 15).dead()


def test_a_living_peer_that_takes_nothing_lives() -> None:
    """TCP_USER_TIMEOUT would have broken this connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()
    with sender, receiver:
        tune_tcp(sender, 1)
        watch = PeerWatch(sender, 1)
        sender.settimeout(0.3)
        with suppress(TimeoutError):
            while True:
                sender.send(bytes(65536))
        for _ in range(25):
            assert not watch.dead()
            time.sleep(0.1)
