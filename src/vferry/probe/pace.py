"""How fast to probe: no faster than the address answers, or the probes would be the interruption that they measure."""

import time
from collections.abc import Iterator

from vferry.probe.line import Line

SECOND = 10**9
BURST, TRIES = 50, 3
LOOK_S = 0.001
# Numbers that no measurement comes to, so that an answer that is late is not taken for one of its own.
FIRST = 1 << 62


def bearable(line: Line, wanted: int) -> int:
    """The probes a second to send: `wanted`, or what takes at most half of the time of whoever answers.

    What one answer costs follows from how much longer a burst of them takes than one alone, at best. Less than `wanted`
    is rounded down to 1, 2 or 5 times a power of ten. Where nothing answers it is `wanted`. Takes milliseconds, or
    seconds where answers are slow. May leave answers on the way.
    """
    numbers = iter(range(FIRST, FIRST + TRIES * (BURST + 1)))
    costs = []
    for _ in range(TRIES):
        alone = _burst(line, numbers, 1)
        together = _burst(line, numbers, BURST)
        if together is None:
            break
        costs.append((together - (alone or 0)) / (BURST - 1))
    cost = max(min(costs, default=0), 0)
    return wanted if 2 * cost * wanted <= SECOND else _rounded(int(SECOND / (2 * cost)))


def _burst(line: Line, numbers: Iterator[int], size: int) -> float | None:
    """The ns until `size` answers had come, or would have at the pace of those of a second; None if nothing came."""
    began = time.monotonic_ns()
    for _ in range(size):
        try:
            line.send(next(numbers))
        except OSError:
            return None
    arrivals: list[int] = []
    while len(arrivals) < size and time.monotonic_ns() - began < SECOND:
        time.sleep(LOOK_S)
        arrivals += [arrival for _, arrival in line.answers()]
    if not arrivals:
        return None
    return (max(arrivals) - began) * size / len(arrivals)


def _rounded(rate: int) -> int:
    power = 10 ** (len(str(rate)) - 1)
    return max(factor * power for factor in (1, 2, 5) if factor * power <= max(rate, 1))
