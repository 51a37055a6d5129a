"""How far each channel of a session has come at the receiver, so that a block can wait for what it builds on."""

import threading
from collections.abc import Iterable

from vferry.transfer.block import Need
from vferry.transfer.wire import WireError


class Progress:
    """The last block applied on each channel. Any thread may call anything."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._applied: dict[int, int] = {}
        self._open: set[int] = set()

    def begin(self, channel: int) -> None:
        """Take a channel in; a need for another one is an error."""
        with self._changed:
            self._applied[channel] = -1
            self._open.add(channel)

    def advance(self, channel: int, sequence: int) -> None:
        """Say that a block is applied, and with it all before it."""
        with self._changed:
            self._applied[channel] = sequence
            self._changed.notify_all()

    def end(self, channel: int) -> None:
        """Say that no more will come of a channel, so that nobody waits for it in vain."""
        with self._changed:
            self._open.discard(channel)
            self._changed.notify_all()

    def wait(self, needs: Iterable[Need]) -> None:
        """Return when all `needs` are applied; raises `WireError` when one of them never will be."""
        with self._changed:
            for channel, sequence in needs:
                while self._applied.get(channel, -1) < sequence:
                    if channel not in self._open:
                        raise WireError(f"block {sequence} of channel {channel} is needed and did not come")
                    self._changed.wait()
