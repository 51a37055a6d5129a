"""Time that passes only while everybody waits: minutes of polling take no time."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar
from unittest import mock

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Puts the clock forward instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everybody waits, and for nothing that time will bring")
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end; `time.monotonic` shows the loop's clock meanwhile. Leaves no task."""
    loop = VirtualLoop()
    try:
        with mock.patch("time.monotonic", loop.time):
            answer = loop.run_until_complete(work)
        left = asyncio.all_tasks(loop)
        assert not left, f"tasks were left behind: {left}"
        return answer
    finally:
        loop.close()
