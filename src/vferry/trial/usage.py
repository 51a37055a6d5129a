"""CPU time over a migration: in total, and in the busiest second."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Sample(NamedTuple):
    """CPU seconds that each party has taken by `at`, in seconds."""

    at: float
    cpu_s: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.cpu_s.values())


def taken(samples: Sequence[Sample]) -> dict[str, float]:
    """CPU seconds that each party took from the first sample to the last."""
    first, last = samples[0].cpu_s, samples[-1].cpu_s
    return {name: last[name] - first[name] for name in first}


def busiest(samples: Sequence[Sample]) -> float:
    """CPU seconds of all parties together in the busiest second: cores. What lasted less counts as a second."""
    most = 0.0
    begin = 0
    for end, sample in enumerate(samples):
        while begin + 1 <= end and sample.at - samples[begin + 1].at >= 1.0:
            begin += 1
        span = max(1.0, sample.at - samples[begin].at)
        most = max(most, (sample.total - samples[begin].total) / span)
    return most
