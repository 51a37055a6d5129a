"""Which codec at which level: decisions only, made from what packing and sending took.

A connection's thread packs a block and hands it to the kernel, which sends it while the next one is packed. So a
byte of the stream costs about the longer of the two: packing it, or its share of the link after compression.
`decide` estimates both for every rung of the ladder and takes the cheapest. What is in use is measured; what is not
in use is remembered, and slowly forgotten for what is usual, so that it is tried again. The link is measured while
sending has to wait for it; while it has not, it is believed to be a little faster each time.
"""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

WINDOW_S = 0.1
# Parts of the time after which sending counts as waiting for the link, and the input for the one that is slow.
LINK_SHARE = 0.2
INPUT_SHARE = 0.5
GAIN = 1.05
FORGET = 0.02
PROBE = 1.02
# How much of the shorter cost the longer one does not hide.
OVERLAP_LOSS = 0.25


class Choice(NamedTuple):
    """A codec and its own level."""

    codec: str
    level: int


class Rung(NamedTuple):
    """A choice with its usual speed, in bytes of the stream a second, and ratio: what is assumed, and estimated."""

    choice: Choice
    speed: float
    ratio: float


# Programs in memory, on one core of a server of 2020; what matters are the proportions.
LADDER = (
    Rung(Choice("none", 0), 4e9, 1.0),
    Rung(Choice("lz4", 1), 600e6, 1.7),
    Rung(Choice("zstd", 1), 400e6, 2.1),
    Rung(Choice("zstd", 3), 250e6, 2.2),
    Rung(Choice("zstd", 6), 100e6, 2.35),
)
USUAL = {rung.choice: rung for rung in LADDER}
DEFAULT_LEVELS = {"none": 0, "lz4": 1, "zstd": 1, "deflate": 1}


class Sample(NamedTuple):
    """Blocks of about `WINDOW_S`: bytes before and after packing, seconds of waiting for input, packing, sending."""

    stream_bytes: int
    encoded_bytes: int
    waited_s: float
    packed_s: float
    sent_s: float

    @property
    def seconds(self) -> float:
        return self.waited_s + self.packed_s + self.sent_s


class Belief(NamedTuple):
    """What is believed of each rung and of the link, in bytes on the wire a second, and the rung in use."""

    rungs: Sequence[Rung]
    link: float = math.inf
    current: int = 0
    content: float = 1.0
    """How far the guest's memory compresses against what is usual: 0 for not at all."""


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
    """Starts without compression, and decides anew every `WINDOW_S`."""

    def __init__(self, codecs: Collection[str]) -> None:
        """`codecs` are those that both gateways have; none is one of them."""
        self._belief = Belief(tuple(rung for rung in LADDER if rung.choice.codec in codecs))
        self._sample = Sample(0, 0, 0.0, 0.0, 0.0)

    @property
    def choice(self) -> Choice:
        return self._belief.rungs[self._belief.current].choice

    @property
    def for_headers(self) -> Choice:
        return self._belief.rungs[1 if len(self._belief.rungs) > 1 else 0].choice

    def observe(self, sample: Sample) -> None:
        """Add a block to the window; decide when it is full."""
        self._sample = _add(self._sample, sample)
        if self._sample.seconds >= WINDOW_S:
            self._belief = decide(self._belief, self._sample)
            self._sample = Sample(0, 0, 0.0, 0.0, 0.0)


def decide(belief: Belief, sample: Sample) -> Belief:
    """Learn from a window and choose the rung for the next one."""
    belief = learn(belief, sample)
    if sample.waited_s > INPUT_SHARE * sample.seconds:
        return belief  # nothing waits for the gateway
    costs = [cost(rung, belief.link) for rung in belief.rungs]
    best = min(range(len(costs)), key=costs.__getitem__)
    return belief._replace(current=best) if costs[best] * GAIN < costs[belief.current] else belief


def cost(rung: Rung, link: float) -> float:
    """Seconds a byte of the stream takes."""
    packing, sending = 1 / rung.speed, 1 / (rung.ratio * link)
    return max(packing, sending) + OVERLAP_LOSS * min(packing, sending)


def learn(belief: Belief, sample: Sample) -> Belief:
    """Take a window's figures into what is believed; changes no choice."""
    used = belief.rungs[belief.current]
    speed = (used.speed + sample.stream_bytes / max(sample.packed_s, 1e-9)) / 2
    ratio = (used.ratio + sample.stream_bytes / sample.encoded_bytes) / 2
    machine = speed / USUAL[used.choice].speed
    gain = USUAL[used.choice].ratio - 1
    content = max(0.0, ratio - 1) / gain if gain else belief.content + FORGET * (1 - belief.content)
    rungs = [_forget(rung, machine, content) for rung in belief.rungs]
    rungs[belief.current] = Rung(used.choice, speed, ratio)
    return Belief(tuple(rungs), _link(belief.link, sample), belief.current, content)


def _forget(rung: Rung, machine: float, content: float) -> Rung:
    """Let what was measured once drift to what is to be expected on this machine, for this memory."""
    usual = USUAL[rung.choice]
    speed = rung.speed + FORGET * (usual.speed * machine - rung.speed)
    return Rung(rung.choice, speed, rung.ratio + FORGET * (1 + (usual.ratio - 1) * content - rung.ratio))


def _link(link: float, sample: Sample) -> float:
    rate = sample.encoded_bytes / sample.seconds
    if sample.sent_s < LINK_SHARE * sample.seconds:
        return max(link * PROBE, rate)
    return rate if math.isinf(link) else (link + rate) / 2


def _add(one: Sample, other: Sample) -> Sample:
    return Sample(
        one.stream_bytes + other.stream_bytes,
        one.encoded_bytes + other.encoded_bytes,
        one.waited_s + other.waited_s,
        one.packed_s + other.packed_s,
        one.sent_s + other.sent_s,
    )
