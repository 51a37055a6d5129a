"""Which codec at which level: decisions only, made from what packing and sending took.

What counts is the cost of a rung of the ladder: seconds of the connection's thread for a byte to be encoded, and a
quarter of those that encoding takes once more, so that a rung has to be worth the processor that it takes. The cost
of the rung in use is measured. That of the others is a guess, or remembered; what is remembered drifts to the guess,
so that a rung is tried again after some seconds, and is void when the cost of the one in use doubles or halves at
once. The guess: a block is encoded while the kernel sends the one before, so it takes about the longer of encoding
and its share of the link after compression. The link is measured while sending has to wait for it; while it has not,
it is believed to be a little faster each time.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

from vferry.model.compression import FOR_HARDWARE, TRAITS

# Parts of the time after which sending counts as waiting for the link, and the input for the one that is slow.
LINK_SHARE = 0.2
INPUT_SHARE = 0.5
GAIN = 1.05
FORGET = 0.03
UPSET = 2.0
PROBE = 1.05
# What a second of the processor is worth, in seconds of the connection: the guests want it, too.
PRICE = 0.25


class Choice(NamedTuple):
    """A codec and its own level."""

    codec: str
    level: int


class Rung(NamedTuple):
    """A choice with its usual speed, in bytes before encoding a second, and its usual ratio."""

    choice: Choice
    speed: float
    ratio: float


_RUNGS = [Rung(Choice(name, level), *usual) for name, traits in TRAITS.items() for level, *usual in traits.usual]
LADDER = tuple(sorted(_RUNGS, key=lambda rung: (rung.ratio, -rung.speed)))
"""From none upwards to what makes memory smallest."""
USUAL = {rung.choice: rung for rung in LADDER}


class Sample(NamedTuple):
    """Some blocks: bytes before and after encoding, and seconds.

    `waited_s` for input; `prepared_s` for what every block needs, checksum and page copies among it; `encoded_s` in
    the codec; `sent_s` until the kernel had taken it all.
    """

    content_bytes: int
    encoded_bytes: int
    waited_s: float
    prepared_s: float
    encoded_s: float
    sent_s: float

    @property
    def busy_s(self) -> float:
        return self.prepared_s + self.encoded_s + self.sent_s

    @property
    def seconds(self) -> float:
        return self.waited_s + self.busy_s


class Belief(NamedTuple):
    """What is believed of the rungs, by their order, and of the world."""

    rungs: tuple[Rung, ...]
    costs: tuple[float, ...]
    tried: frozenset[int] = frozenset()
    """Rungs whose costs are remembered rather than guessed."""
    current: int = 0
    stayed: bool = False
    """Whether the rung in use was so in the window before, too."""
    link: float = math.inf
    """Bytes on the wire a second."""
    machine: float = 1.0
    """Speed of encoding against what is usual."""
    content: float = 1.0
    """How far the guest's memory compresses against what is usual: 0 for not at all."""


def first_belief(codecs: Collection[str]) -> Belief:
    """Start without compression, and with the usual guesses; `codecs` are those that both gateways have."""
    rungs = tuple(rung for rung in LADDER if rung.choice.codec in codecs)
    return Belief(rungs, tuple(guess(rung, math.inf) for rung in rungs))


def decide(belief: Belief, sample: Sample) -> Belief:
    """Learn from a window and choose the rung for the next one."""
    belief = learn(belief, sample)
    if waits_for_input(sample):
        return belief
    least = min(belief.costs) * GAIN
    if belief.costs[belief.current] <= least:
        return belief
    return belief._replace(current=next(n for n, cost in enumerate(belief.costs) if cost <= least), stayed=False)


def waits_for_input(sample: Sample) -> bool:
    """Whether the input was what is slow: then nothing waits for the gateway."""
    return sample.waited_s > INPUT_SHARE * sample.seconds


def guess(rung: Rung, link: float, machine: float = 1.0, content: float = 1.0, prepare: float = 0.0) -> float:
    """What a rung should cost, in seconds a byte; `prepare` is what any of them costs."""
    encoding = 1 / (rung.speed * machine)
    sending = 1 / (link * (1 + (rung.ratio - 1) * content))
    return prepare + max(encoding, sending) + PRICE * encoding


def learn(belief: Belief, sample: Sample) -> Belief:
    """Take a window's figures into what is believed; changes no choice."""
    used = belief.rungs[belief.current]
    link = _link(belief.link, sample)
    machine, content = belief.machine, belief.content + FORGET * (1 - belief.content)
    if used.ratio > 1:
        speed = sample.content_bytes / max(sample.encoded_s, 1e-9)
        if used.choice.codec not in FOR_HARDWARE:  # a device says nothing of the processor
            machine = (machine + speed / used.speed) / 2
        gain = max(0.0, sample.content_bytes / sample.encoded_bytes - 1)
        content = (belief.content + gain / (used.ratio - 1)) / 2
    prepare = sample.prepared_s / sample.content_bytes
    guesses = [guess(rung, link, machine, content, prepare) for rung in belief.rungs]
    cost = (sample.busy_s + PRICE * sample.encoded_s) / sample.content_bytes
    before = belief.costs[belief.current]
    upset = belief.stayed and not before / UPSET < cost < before * UPSET
    tried = frozenset() if upset else belief.tried
    costs = [_drift(belief.costs[n], usual) if n in tried else usual for n, usual in enumerate(guesses)]
    costs[belief.current] = cost
    tried |= {belief.current}
    return belief._replace(costs=tuple(costs), tried=tried, stayed=True, link=link, machine=machine, content=content)


def _drift(cost: float, usual: float) -> float:
    return cost + FORGET * (usual - cost)


def _link(link: float, sample: Sample) -> float:
    rate = sample.encoded_bytes / sample.seconds
    if sample.sent_s < LINK_SHARE * sample.seconds:
        return max(link * PROBE, rate)
    return rate if math.isinf(link) else (link + rate) / 2
