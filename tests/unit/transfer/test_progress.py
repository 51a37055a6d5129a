"""Waiting for blocks of other channels, and what will never come."""

import threading
from collections.abc import Sequence

import pytest

from vferry.transfer.block import Need
from vferry.transfer.progress import Progress
from vferry.transfer.wire import WireError

from .conftest import WAIT_S, wait_for


def progress(*channels: int) -> Progress:
    made = Progress()
    for channel in channels:
        made.begin(channel)
    return made


def waiting(of: Progress, channel: int, needs: Sequence[Need]) -> tuple[threading.Thread, list[WireError]]:
    """A thread that waits, and the error that ends it."""
    errors: list[WireError] = []

    def wait() -> None:
        try:
            of.wait(channel, needs)
        except WireError as error:
            errors.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread, errors


def test_a_block_waits_for_what_it_needs() -> None:
    made = progress(0, 1, 2)
    thread, errors = waiting(made, 0, [Need(1, 3), Need(2, 0)])
    for channel, sequence in ((1, 2), (2, 0), (1, 3)):
        assert thread.is_alive()
        made.advance(channel, sequence)
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert not errors


@pytest.mark.parametrize("ends", [1, 2])
def test_nobody_waits_for_a_channel_that_has_ended(ends: int) -> None:
    made = progress(0, 1, 2)
    made.advance(2, 7)
    thread, errors = waiting(made, 0, [Need(2, 7), Need(1, 0)])
    made.end(ends)
    made.end(1)
    thread.join(WAIT_S)
    assert len(errors) == 1


def test_a_block_that_needs_itself_or_one_after_it_is_an_error() -> None:
    with pytest.raises(WireError):
        progress(0).wait(0, [Need(0, 4)])


def test_blocks_that_wait_in_a_circle_are_an_error() -> None:
    made = progress(0, 1, 2)
    first, _ = waiting(made, 0, [Need(1, 5)])
    second, _ = waiting(made, 1, [Need(2, 5)])
    wait_for(lambda: len(made._waits) == 2)
    with pytest.raises(WireError):
        made.wait(2, [Need(0, 0)])
    for channel, sequence in ((2, 5), (1, 5)):
        made.advance(channel, sequence)
    for thread in (first, second):
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_one_that_is_about_to_wake_up_waits_for_nothing_any_more() -> None:
    made = progress(0, 1)
    made._waits[1] = Need(0, 3)  # its thread has not run since
    made.advance(0, 3)
    thread, errors = waiting(made, 0, [Need(1, 0)])
    wait_for(lambda: 0 in made._waits or bool(errors))
    made.advance(1, 0)
    thread.join(WAIT_S)
    assert not errors
