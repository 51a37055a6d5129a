"""Bringing the blocks of one connection, which come over several streams, into their order."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vferry.transfer.wire import WireError


class Turns:
    """Lets the streams' threads work one after the other, by the sequence of their blocks. Any thread may call it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = 0
        self._streams = 0
        self._waiting: dict[int, int] = {}
        self._failed = False

    def join(self) -> None:
        """Take one more stream in."""
        with self._changed:
            self._streams += 1

    def leave(self, *, failed: bool) -> None:
        """A stream has ended; if it failed, all fail."""
        with self._changed:
            self._streams -= 1
            self._failed = self._failed or failed
            self._changed.notify_all()

    def finish(self) -> None:
        """Wait until no stream is left; raises `WireError` if one has failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._failed or not self._streams)
            self._check()

    @contextmanager
    def take(self, sequence: int) -> Iterator[None]:
        """Wait for the turn of a block, and pass it on after; raises `WireError` if it never comes.

        It never comes when every stream waits, or has ended, and none has the block that is due.
        """
        me = threading.get_ident()
        with self._changed:
            self._waiting[me] = sequence
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._failed or self._next == sequence or self._stuck())
            del self._waiting[me]
            self._check()
            if self._next != sequence:
                self._failed = True
                self._changed.notify_all()
                raise WireError(f"block {sequence} instead of {self._next}")
        yield
        with self._changed:
            self._next += 1
            self._changed.notify_all()

    def _stuck(self) -> bool:
        return len(self._waiting) >= self._streams and self._next not in self._waiting.values()

    def _check(self) -> None:
        if self._failed:
            raise WireError("another stream of the connection has failed")
