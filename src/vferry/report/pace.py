"""How long a copy still takes, by how fast its pass has got on so far.

QEMU's own rate says little of that: it is of the bytes sent in the last tenth of a second, and a page of zeros takes
eight. By it a guest whose memory is mostly empty would take an hour, and ends in a moment.
"""

from dataclasses import dataclass


@dataclass
class Pace:
    """Of one copy, which is looked at again and again."""

    _pass: int = -1
    _bytes: int = 0
    _since: float = 0.0

    def to_go(self, remaining_bytes: int, rounds: int, at: float) -> float | None:
        """Seconds to the end of the pass, of a clock that says `at` now; None as long as nothing has got done in it."""
        if rounds != self._pass or remaining_bytes > self._bytes:
            self._pass, self._bytes, self._since = rounds, remaining_bytes, at
        done = self._bytes - remaining_bytes
        return remaining_bytes * (at - self._since) / done if done else None
