"""The choice of a codec against simulated links, processors and guests."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.transfer.tuner import WINDOW_S, AdaptiveTuner
from vferry.transfer.tuning import LADDER, PRICE, USUAL, Choice, Sample, decide, first_belief

ALL = ("none", "lz4", "zstd")


class World(NamedTuple):
    """A link in bytes a second, a machine's speed against the usual one, how far the guest's memory compresses.

    `receiver` is how fast the other side decodes, in bytes of the stream a second.
    """

    link: float
    machine: float = 1.0
    compressible: float = 1.0
    receiver: float = 1e12

    def block(self, choice: Choice) -> Sample:
        """What a block of half a megabyte takes."""
        usual = USUAL[choice]
        ratio = 1 + (usual.ratio - 1) * self.compressible
        size = 512 * 1024
        prepared, encoded = size / 2e9 / self.machine, size / usual.speed / self.machine
        decoded = 0.0 if choice.codec == "none" else size / self.receiver
        sent = max(size / ratio / self.link, decoded) - prepared - encoded
        return Sample(size, round(size / ratio), 0.0, prepared, encoded, max(0.0, sent))

    def least_cost(self) -> float:
        """Seconds a byte of the best choice."""
        return min(cost(self.block(rung.choice)) for rung in LADDER if rung.choice.codec in ALL)


def cost(sample: Sample) -> float:
    """What a byte takes, with the price of the processor."""
    return (sample.seconds + PRICE * sample.encoded_s) / sample.content_bytes


def run(tuner: AdaptiveTuner, world: World, seconds: float) -> tuple[float, list[Choice]]:
    """Send for a while; returns what a byte cost, and the choices made."""
    time = costs = sent = 0.0
    choices = [tuner.choice]
    while time < seconds:
        sample = world.block(tuner.choice)
        tuner.observe(sample)
        time += sample.seconds
        sent += sample.content_bytes
        costs += sample.content_bytes * cost(sample)
        if choices[-1] != tuner.choice:
            choices.append(tuner.choice)
    return costs / sent, choices


@pytest.mark.parametrize("link", [5e6, 12e6, 50e6, 125e6, 300e6, 1250e6, 5e9])
@pytest.mark.parametrize("machine", [1.0, 0.3, 0.02])
@pytest.mark.parametrize("compressible", [1.0, 0.0, 10.0])
def test_it_comes_close_to_the_best_choice(link: float, machine: float, compressible: float) -> None:
    world = World(link, machine, compressible)
    tuner = AdaptiveTuner(ALL)
    run(tuner, world, 1)
    assert run(tuner, world, 20)[0] < 1 / 0.9 * world.least_cost()


@pytest.mark.parametrize(("before", "after"), [(World(12e6), World(5e9)), (World(5e9), World(12e6))])
def test_it_follows_a_link_that_changes(before: World, after: World) -> None:
    tuner = AdaptiveTuner(ALL)
    run(tuner, before, 5)
    run(tuner, after, 10)
    assert run(tuner, after, 5)[0] < 1 / 0.9 * after.least_cost()


def test_it_is_off_on_a_link_faster_than_any_compressor() -> None:
    assert run(AdaptiveTuner(ALL), World(5e9), 5)[1] == [Choice("none", 0)]


def test_it_compresses_within_two_windows_on_a_slow_link() -> None:
    tuner = AdaptiveTuner(ALL)
    run(tuner, World(12e6), 2 * WINDOW_S)
    assert tuner.choice.codec == "zstd"


def test_it_has_passed_on_little_when_it_begins_to_compress() -> None:
    tuner, world, passed = AdaptiveTuner(ALL), World(25e6), 0
    tuner.observe(Sample(1 << 19, 1 << 19, 0.5, 0.0, 0.0, 0.001))  # it has waited for the first page
    while tuner.choice.codec == "none":
        sample = world.block(tuner.choice)
        passed += sample.content_bytes
        tuner.observe(sample)
    assert passed <= 1 << 20


def test_it_does_not_flap() -> None:
    assert len(run(AdaptiveTuner(ALL), World(50e6), 20)[1]) <= 4


def test_it_does_not_compress_for_a_receiver_that_decodes_slower_than_the_link() -> None:
    world = World(300e6, receiver=100e6)
    tuner = AdaptiveTuner(ALL)
    run(tuner, world, 2)
    assert run(tuner, world, 20)[0] < 1 / 0.9 * world.least_cost()


def test_it_leaves_things_alone_while_it_waits_for_input() -> None:
    tuner = AdaptiveTuner(ALL)
    tuner.observe(Sample(1 << 20, 1 << 20, 0.9, 0.02, 0.03, 0.05))
    assert tuner.choice.codec == "none"


def test_it_uses_only_what_both_gateways_have() -> None:
    assert {choice.codec for choice in run(AdaptiveTuner(["none", "lz4"]), World(12e6), 5)[1]} == {"none", "lz4"}


seconds = st.floats(0, 100)
samples = st.builds(
    Sample, st.integers(1, 2**40), st.integers(1, 2**40), seconds, seconds, seconds, st.floats(0.001, 100)
)


@given(st.lists(samples, max_size=20))
def test_whatever_is_measured_it_chooses_something(measured: list[Sample]) -> None:
    belief = first_belief(ALL)
    for sample in measured:
        belief = decide(belief, sample)
    assert 0 <= belief.current < len(LADDER)


def test_a_device_is_taken_where_both_gateways_have_it() -> None:
    slow = World(link=50e6)
    assert any(choice.codec == "qatzip" for choice in run(AdaptiveTuner((*ALL, "qatzip")), slow, 5)[1])
    assert all(choice.codec != "qatzip" for choice in run(AdaptiveTuner(ALL), slow, 5)[1])
