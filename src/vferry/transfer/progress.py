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
        self._waits: dict[int, Need] = {}

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

    def wait(self, channel: int, needs: Iterable[Need]) -> None:
        """Return when all `needs` of a channel's block are applied; raises `WireError` when one of them never will be.

        It never will be after the end of its channel, nor where that waits, in the end, for this block: no sender that
        keeps to the protocol asks for that.
        """
        with self._changed:
            try:
                for need in needs:
                    self._waits[channel] = need
                    while self._is_open(need):
                        if need.channel not in self._open or self._in_a_circle(channel):
                            lacking = f"block {need.sequence} of channel {need.channel}"
                            raise WireError(f"{lacking} is needed and will not come")
                        self._changed.wait()
            finally:
                self._waits.pop(channel, None)

    def _is_open(self, need: Need) -> bool:
        return self._applied.get(need.channel, -1) < need.sequence

    def _in_a_circle(self, channel: int) -> bool:
        need = self._waits[channel]
        while need.channel != channel:
            following = self._waits.get(need.channel)
            # One that has not woken up yet may wait for nothing any more.
            if following is None or not self._is_open(following):
                return False
            need = following
        return True
