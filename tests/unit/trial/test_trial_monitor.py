"""Talking to a QEMU that answers, refuses, tells and ends."""

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from vferry.model.problem import Problem
from vferry.trial.monitor import Monitor, RefusedError

STOP = {"event": "STOP", "timestamp": {"seconds": 10, "microseconds": 500_000}}
DONE = {"event": "MIGRATION", "data": {"status": "completed"}, "timestamp": {"seconds": 11, "microseconds": 0}}


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    """Its QEMU refuses `bad`, sends two events before the answer to `good`, and ends on `quit`."""
    here, there = socket.socketpair()

    def serve() -> None:
        with there, there.makefile("rwb") as stream:
            lines: list[object] = [{"QMP": {}}]
            while True:
                stream.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
                stream.flush()
                command = json.loads(stream.readline())["execute"]
                if command == "quit":
                    return
                lines = [{"error": {"desc": "no"}}] if command == "bad" else [STOP, DONE, {"return": command}]

    thread = threading.Thread(target=serve)
    thread.start()
    monitor = Monitor(here)
    yield monitor
    with pytest.raises(Problem):
        monitor.ask("quit")
    here.close()
    thread.join()


def test_answers_and_events_are_told_apart(monitor: Monitor) -> None:
    assert monitor.ask("good") == "good"
    assert monitor.when("STOP") == 10.5
    assert monitor.when("MIGRATION", status="completed") == 11.0
    assert monitor.when("MIGRATION", status="failed") is None


def test_a_refusal_says_what_was_refused(monitor: Monitor) -> None:
    with pytest.raises(RefusedError, match="bad: no"):
        monitor.ask("bad")


def test_an_ended_qemu_is_a_problem_every_time(monitor: Monitor) -> None:
    for _ in range(3):
        with pytest.raises(Problem, match="has ended"):
            monitor.ask("quit")
