"""How fast to probe: no faster than the address answers, or the probes would be the interruption that they measure."""

import statistics
import time

from vferry.probe.line import NEWEST, Line

SECOND = 10**9
BURST, TRIES = 50, 5
SHARE = 20
"""The probes take a twentieth of the time of whoever answers: as it migrates, its processor is not its own."""
LOOK_S = 0.001
# Numbers that no measurement comes to, so that an answer that is late is not taken for one of its own.
FIRST = 1 << 62


def bearable(line: Line, wanted: int) -> int:
    """The probes a second to send: `wanted`, or what takes the `SHARE`th part of the time of whoever answers.

    What an answer costs follows from how much longer a burst of them takes than one alone, in the median. Less
    than `wanted` is rounded down to 1, 2 or 5 times a power of ten. Where nothing answers it is `wanted`. Takes
    milliseconds, or seconds where answers are slow. May leave answers on the way.
    """
    costs = []
    for first in range(FIRST, FIRST + TRIES * 2 * BURST, 2 * BURST):
        alone = _burst(line, range(first, first + 1))
        together = _burst(line, range(first + 1, first + 1 + BURST))
        if together is None:
            break
        costs.append((together - (alone or 0)) / (BURST - 1))
    cost = max(statistics.median(costs), 0) if costs else 0
    return wanted if SHARE * cost * wanted <= SECOND else _rounded(int(SECOND / (SHARE * cost)))


def _burst(line: Line, numbers: range) -> float | None:
    """The ns until all had answers, or would have at the pace of those that came in a second; None if none came."""
    began = time.monotonic_ns()
    for number in numbers:
        try:
            line.send(number)
        except OSError:
            return None
    arrivals: list[int] = []
    while len(arrivals) < len(numbers) and time.monotonic_ns() - began < SECOND:
        time.sleep(LOOK_S)
        arrivals += [arrival for number, arrival in line.answers() if number in numbers or number == NEWEST]
    return (max(arrivals) - began) * len(numbers) / len(arrivals) if arrivals else None


def _rounded(rate: int) -> int:
    power: int = 10 ** (len(str(rate)) - 1)
    return max(factor * power for factor in (1, 2, 5) if factor * power <= max(rate, 1))
