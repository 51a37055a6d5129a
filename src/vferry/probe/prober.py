"""The measuring loop: sends on a fixed schedule, collects the answers, settles each probe within a second."""

import select
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from vferry.probe.line import NEWEST, Line
from vferry.probe.record import LOST, UNSENT, Recording

MS = 1_000_000
SECOND = 1000 * MS
LATE = 200 * MS
# A pause between two probes that is longer than the interval by more than this is the prober's own stall.
STALL = 20 * MS
# Sending takes microseconds; a call that takes this long was descheduled, before or after the packet left.
SLOW_CALL = 5 * MS
HOUSEKEEPING = 10 * MS


class Probe:
    """One probe on its way. `excess`: the prober's own stalls up to its sending, in ns.

    `began` is when the call that sends it began, `sent` when it counts as sent; they differ if that call was slow.
    """

    __slots__ = ("began", "excess", "rtt", "sent", "sequence")

    def __init__(self, sequence: int, sent: int, excess: int) -> None:
        self.sequence = sequence
        self.began = self.sent = sent
        self.excess = excess
        self.rtt: int | None = None


class Prober:
    """Measures until `stdin` closes, `stop` is called or `seconds` are over; `emit` gets a line each second."""

    def __init__(
        self,
        line: Line,
        recording: Recording,
        rate: int,
        seconds: float | None,
        emit: Callable[[dict[str, Any]], None],
        stdin: int | None = None,
    ) -> None:
        self._line, self._recording, self._emit, self._stdin = line, recording, emit, stdin
        self._interval = SECOND // rate
        self._seconds = seconds
        self._open: deque[Probe] = deque()
        self._waiting: dict[int, Probe] = {}
        self._stopped = False
        self._sent = self._lost = self._late = self._unsent = 0
        self._excess = self._stall_max = self._rtt_max = self._longest_gap = 0
        self._last_sent = 0
        self._last_arrival, self._last_answered_excess = 0, 0
        self._error: str | None = None

    def stop(self) -> None:
        """Ends the measurement; the loop still waits up to a second for the answers that are due."""
        self._stopped = True

    def run(self) -> None:
        """The loop. Raises OSError if the record cannot be written."""
        start = deadline = self._last_arrival = time.monotonic_ns()
        end = start + int(self._seconds * SECOND) if self._seconds else None
        swept, told = start, start
        while not self._stopped and (end is None or deadline < end):
            now = time.monotonic_ns()
            # After a stall of our own the probes that are due follow at four times the rate, not in one burst.
            due = max(deadline, self._last_sent + self._interval // 4)
            if now < due:
                time.sleep(min(due - now, 50 * MS) / SECOND)
                now = time.monotonic_ns()
            if now >= due:
                self._send(now)
                # Beyond a second they are given up: nobody wants a minute's worth of probes at once.
                deadline = deadline + self._interval if now - deadline < SECOND else now
            if now - swept >= HOUSEKEEPING:
                swept = now
                self._collect()
                self._listen()
            if now - told >= SECOND:
                told = now
                self._tell("live")
        self._finish()

    def _send(self, now: int) -> None:
        if self._last_sent and now - self._last_sent > self._interval + STALL:
            stall = now - self._last_sent - self._interval
            self._excess += stall
            self._stall_max = max(self._stall_max, stall)
        probe = Probe(self._sent, now, self._excess)
        self._sent += 1
        self._last_sent = now
        self._open.append(probe)
        try:
            self._line.send(probe.sequence)
        except OSError as error:
            probe.rtt = UNSENT
            self._error = error.strerror
            return
        self._waiting[probe.sequence] = probe
        after = time.monotonic_ns()
        if after - now > SLOW_CALL:
            # So a stall of ours may make an answer look early, but never late.
            probe.sent = self._last_sent = after
            if after - now > STALL:
                self._excess += after - now
                probe.excess = self._excess
                self._stall_max = max(self._stall_max, after - now)

    def _collect(self) -> None:
        for sequence, arrival in self._line.answers():
            probe = self._newest(arrival) if sequence == NEWEST else self._waiting.get(sequence)
            if probe is not None and arrival - probe.sent <= SECOND:
                del self._waiting[probe.sequence]
                self._answer(probe, arrival)
        now = time.monotonic_ns()
        while self._open and (self._open[0].rtt is not None or now - self._open[0].sent > SECOND):
            self._settle(self._open.popleft())

    def _newest(self, arrival: int) -> Probe | None:
        """The newest probe that was on its way, or the oldest: two clocks are compared, and may be microseconds off."""
        newest = next((probe for probe in reversed(self._waiting.values()) if probe.began <= arrival), None)
        return newest or next(iter(self._waiting.values()), None)

    def _answer(self, probe: Probe, arrival: int) -> None:
        probe.rtt = max(0, arrival - probe.sent)
        self._rtt_max = max(self._rtt_max, probe.rtt)
        self._longest_gap = max(self._longest_gap, self._gap(arrival, probe.excess))
        if arrival > self._last_arrival:
            self._last_arrival, self._last_answered_excess = arrival, probe.excess

    def _gap(self, until: int, excess: int) -> int:
        own = max(0, excess - self._last_answered_excess)
        return max(0, until - self._last_arrival - own)

    def _settle(self, probe: Probe) -> None:
        rtt = LOST if probe.rtt is None else probe.rtt
        self._waiting.pop(probe.sequence, None)
        self._lost += rtt < 0
        self._unsent += rtt == UNSENT
        self._late += rtt > LATE
        self._recording.add(probe.sent, rtt)

    def _listen(self) -> None:
        """Ends the measurement when standard input closes: whoever started it is gone, or wants it to end."""
        if self._stdin is not None and select.select([self._stdin], [], [], 0)[0]:
            self._stopped = True

    def _tell(self, event: str, until: int | None = None) -> None:
        self._recording.flush()
        gap = self._gap(until or time.monotonic_ns(), self._excess)
        self._emit(
            {
                "event": event,
                "sent": self._sent,
                "lost": self._lost,
                "late": self._late,
                "unsent": self._unsent,
                "gap_ms": gap / MS,
                "longest_gap_ms": max(self._longest_gap, gap) / MS,
                "rtt_max_ms": self._rtt_max / MS if self._rtt_max else None,
                "self_stall_max_ms": self._stall_max / MS if self._stall_max else None,
                "error": self._error,
            }
        )
        self._rtt_max, self._error = 0, None

    def _finish(self) -> None:
        until = time.monotonic_ns() + SECOND + 50 * MS
        self._collect()
        while self._open and time.monotonic_ns() < until:
            time.sleep(HOUSEKEEPING / SECOND)
            self._collect()
        while self._open:
            self._settle(self._open.popleft())
        self._tell("end", until=self._last_sent)
