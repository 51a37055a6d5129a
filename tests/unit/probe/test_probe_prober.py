"""The measuring loop, on a line that is no network."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vferry.probe.line import NEWEST, Line
from vferry.probe.prober import Prober
from vferry.probe.record import ProbeRecord, Recording


class FakeLine(Line):
    """Answers each probe after `delay` ns, but for those `refuse` and `lose` name."""

    def __init__(
        self,
        delay: int = 0,
        *,
        lose: Callable[[int], bool] = lambda _: False,
        refuse: Callable[[int], bool] = lambda _: False,
        numbered: bool = True,
    ) -> None:
        self.delay, self.lose, self.refuse, self.numbered = delay, lose, refuse, numbered
        self.due: deque[tuple[int, int]] = deque()

    def send(self, sequence: int) -> None:
        if self.refuse(sequence):
            raise OSError(101, "Network is unreachable")
        if not self.lose(sequence):
            self.due.append((sequence if self.numbered else NEWEST, time.monotonic_ns() + self.delay))

    def answers(self) -> Iterator[tuple[int, int]]:
        while self.due and self.due[0][1] <= time.monotonic_ns():
            yield self.due.popleft()


def measured(path: Path, line: Line, rate: int, seconds: float) -> tuple[ProbeRecord, list[dict[str, Any]]]:
    header = {"rate": rate, "address": "", "method": "icmp", "wall_offset_ns": 0}
    told: list[dict[str, Any]] = []
    recording = Recording(path, header)
    Prober(line, recording, rate, seconds, told.append).run()
    recording.close()
    return ProbeRecord.load(path), told


def test_every_probe_is_sent_and_settled(tmp_path: Path) -> None:
    line = FakeLine(lose=lambda at: at % 10 == 3, refuse=lambda at: at % 10 == 5)
    record, told = measured(tmp_path / "probes", line, 500, 0.4)
    assert len(record.sent) == 200
    assert [at for at, rtt in enumerate(record.rtt) if rtt == -1] == list(range(3, 200, 10))
    assert [at for at, rtt in enumerate(record.rtt) if rtt == -2] == list(range(5, 200, 10))
    assert list(record.sent) == sorted(record.sent)
    end = told[-1]
    assert (end["event"], end["sent"], end["lost"], end["unsent"]) == ("end", 200, 40, 20)
    assert end["error"] == "Network is unreachable"


def test_an_answer_without_number_is_the_newest_probes(tmp_path: Path) -> None:
    line = FakeLine(lose=lambda at: 20 <= at < 60, numbered=False)
    record, _ = measured(tmp_path / "probes", line, 200, 0.5)
    assert [at for at, rtt in enumerate(record.rtt) if rtt == -1] == list(range(20, 60))


def test_an_answer_that_came_while_its_probe_was_still_being_sent_counts(tmp_path: Path) -> None:
    class SlowCall(FakeLine):
        def send(self, sequence: int) -> None:
            super().send(sequence)
            if sequence == 20:
                time.sleep(0.01)

    record, _ = measured(tmp_path / "probes", SlowCall(numbered=False), 50, 0.6)
    assert min(record.rtt) >= 0


def test_an_answer_that_seems_to_come_before_its_probe_counts(tmp_path: Path) -> None:
    """What the kernel stamps is compared by a clock of its own."""
    record, _ = measured(tmp_path / "probes", FakeLine(-50_000, numbered=False), 50, 0.4)
    assert min(record.rtt) >= 0


def test_after_a_stall_of_its_own_it_catches_up(tmp_path: Path) -> None:
    stalled: list[int] = []

    def stall(at: int) -> bool:
        if at == 50 and not stalled:
            stalled.append(at)
            time.sleep(0.15)
        return False

    record, told = measured(tmp_path / "probes", FakeLine(lose=stall), 500, 0.5)
    assert len(record.sent) == 250
    assert 140 <= told[-1]["self_stall_max_ms"] <= 2000
    assert told[-1]["late"] == 0


def test_late_answers_are_counted(tmp_path: Path) -> None:
    record, told = measured(tmp_path / "probes", FakeLine(delay=300_000_000), 100, 0.2)
    assert told[-1]["late"] == 20
    assert min(record.rtt) >= 200_000_000
