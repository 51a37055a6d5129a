"""How many probes a second an address gets that answers one after the other, by a clock that the test moves."""

from collections.abc import Iterator

import pytest

from vferry.probe import pace
from vferry.probe.line import Line

MS = 1_000_000


class Clock:
    """Stands still but for sleeping."""

    now = 10**9

    def monotonic_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 10**9)


class Answering(Line):
    """Takes `cost` ns for an answer, and `delay` for its way; answers only each `every`th, none where that is 0."""

    def __init__(self, clock: Clock, cost: int, delay: int = 0, every: int = 1) -> None:
        self.clock, self.cost, self.delay, self.every = clock, cost, delay, every
        self.busy_until = self.seen = 0
        self.due: list[tuple[int, int]] = []

    def send(self, sequence: int) -> None:
        self.seen += 1
        if self.every and self.seen % self.every == 0:
            self.busy_until = max(self.busy_until, self.clock.now) + self.cost
            self.due.append((sequence, self.busy_until + self.delay))

    def answers(self) -> Iterator[tuple[int, int]]:
        come = [answer for answer in self.due if answer[1] <= self.clock.now]
        self.due = [answer for answer in self.due if answer[1] > self.clock.now]
        yield from come


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("cost", "delay", "wanted", "sent"),
    [
        (0, 0, 1000, 1000),
        (0, 300 * MS, 10_000, 10_000),
        (MS // 25, 0, 1000, 1000),
        (MS // 5, 0, 1000, 200),
        (MS // 2, 0, 1000, 100),
        (MS // 2, 40 * MS, 1000, 100),
        (MS // 2, 0, 50, 50),
        (MS, 0, 1000, 50),
        (2 * MS, 0, 1000, 20),
        (15 * MS, 0, 1000, 2),
        (400 * MS, 0, 1000, 1),
    ],
)
def test_a_twentieth_of_the_time_of_who_answers(clock: Clock, cost: int, delay: int, wanted: int, sent: int) -> None:
    assert pace.bearable(Answering(clock, cost, delay), wanted) == sent


@pytest.mark.parametrize(("cost", "sent"), [(0, 1000), (2 * MS, 20)])
def test_what_is_lost_on_the_way_is_not_slow(clock: Clock, cost: int, sent: int) -> None:
    line = Answering(clock, cost, every=2)
    assert pace.bearable(line, 1000) == sent


def test_what_was_sent_before_is_not_taken_for_an_answer(clock: Clock) -> None:
    """Answers that take longer than a second come in while the next burst is on its way."""
    assert pace.bearable(Answering(clock, 0, delay=1200 * MS), 1000) == 1000


def test_silence_says_nothing_of_the_pace(clock: Clock) -> None:
    assert pace.bearable(Answering(clock, 0, every=0), 1000) == 1000


def test_one_slow_burst_of_three_does_not_count(clock: Clock) -> None:
    class Hiccup(Answering):
        def send(self, sequence: int) -> None:
            self.cost = 10 * MS if self.seen < 20 else 0
            super().send(sequence)

    assert pace.bearable(Hiccup(clock, 0), 1000) == 1000


def test_a_line_that_refuses_says_nothing_of_the_pace(clock: Clock) -> None:
    class Refusing(Answering):
        def send(self, sequence: int) -> None:
            raise OSError(101, "Network is unreachable")

    assert pace.bearable(Refusing(clock, 0), 200) == 200
