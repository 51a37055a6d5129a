"""What says which codec to use: the operator, or what is measured (`vferry.transfer.tuning`)."""

from collections.abc import Collection
from typing import Protocol

from vferry.transfer.tuning import Choice, Sample, decide, first_belief, waits_for_input

WINDOW_S = 0.1
# The first decision comes sooner: until then nothing is compressed, and no copies of pages are kept.
FIRST_S = 0.02
NOTHING = Sample(0, 0, 0.0, 0.0, 0.0, 0.0)


class Tuner(Protocol):
    """Says what to encode the next block with. An instance belongs to one connection."""

    @property
    def choice(self) -> Choice:
        """The codec and level of the moment."""

    @property
    def for_headers(self) -> Choice:
        """The same for a block of headers alone, which always gain by it."""

    def observe(self, sample: Sample) -> None:
        """Learn from a block."""


class FixedTuner:
    """What the operator has chosen."""

    def __init__(self, choice: Choice) -> None:
        self.choice = self.for_headers = choice

    def observe(self, sample: Sample) -> None:
        """Learn nothing."""


class AdaptiveTuner:
    """Decides anew every `WINDOW_S`, for the first time after `FIRST_S` in which the input was not what is slow."""

    def __init__(self, codecs: Collection[str]) -> None:
        """`codecs` are those that both gateways have; none is one of them."""
        self._belief = first_belief(codecs)
        self._sample = NOTHING
        self._window_s = FIRST_S

    @property
    def choice(self) -> Choice:
        return self._belief.rungs[self._belief.current].choice

    @property
    def for_headers(self) -> Choice:
        return self._belief.rungs[1 if len(self._belief.rungs) > 1 else 0].choice

    def observe(self, sample: Sample) -> None:
        """Add a block to the window; decide when it is full."""
        self._sample = _add(self._sample, sample)
        if self._sample.seconds >= self._window_s:
            self._belief = decide(self._belief, self._sample)
            if not waits_for_input(self._sample):
                self._window_s = WINDOW_S
            self._sample = NOTHING


def _add(one: Sample, other: Sample) -> Sample:
    return Sample(
        one.content_bytes + other.content_bytes,
        one.encoded_bytes + other.encoded_bytes,
        one.waited_s + other.waited_s,
        one.prepared_s + other.prepared_s,
        one.encoded_s + other.encoded_s,
        one.sent_s + other.sent_s,
    )
