"""What the streams of a gateway may hold back, so that it is bounded in time: decisions only.

QEMU takes for delivered what a gateway holds, and it lands in the guest's pause. So all streams together may hold what
the link carries in `HELD_S`. What is under way does not count: a long way takes as much of that as it needs.

The link is measured while it is what is slow, that is while the kernel has bytes that it cannot send yet; while it has
few, it is believed to be twice as fast each time, since what is given to it is soon under way.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from vferry.transfer.endpoint import UNSENT_BYTES
from vferry.transfer.multifd import HEADER_BYTES, PACKET_PAGES, PAGE_BYTES

PACKET_BYTES = HEADER_BYTES + PACKET_PAGES * PAGE_BYTES
# Two packets, since what each block takes of Python was a fifth of the gateways' time, and headers without pages.
BLOCK_BYTES = HEADER_BYTES * 6 + 2 * PACKET_BYTES
# A third of the 300 ms that QEMU may pause a guest for.
HELD_S = 0.1
# In the kernel rather than in a block: this must last until the stream's thread has the next one.
UNSENT_SHARE = 0.25
LEAST_BYTES = 16 * 1024
PROBE = 2.0
# Of what may be unsent, on an average: the kernel wakes a stream's thread at half, and some are busy encoding.
WAITING_SHARE = 0.25


class Allowance(NamedTuple):
    """What each stream may hold, in bytes: in the kernel, not yet under way, and in a block before it is encoded."""

    unsent_bytes: int = UNSENT_BYTES
    block_bytes: int = BLOCK_BYTES


class Seen(NamedTuple):
    """A stream: bytes that arrived at the other side meanwhile, and those that the kernel has not sent yet."""

    arrived_bytes: int
    unsent_bytes: int

    @property
    def busy(self) -> bool:
        return self.arrived_bytes + self.unsent_bytes >= LEAST_BYTES


def allow(rate: float, streams: int) -> Allowance:
    """Share what the link carries in `HELD_S` among so many streams.

    `rate` is in bytes on the wire a second, infinite if it is not known. A block counts as if it did not get smaller.
    """
    share = rate * HELD_S / max(1, streams)
    unsent = min(max(LEAST_BYTES, share * UNSENT_SHARE), UNSENT_BYTES)
    block = min(max(LEAST_BYTES, share - unsent), BLOCK_BYTES)
    return Allowance(int(unsent), int(block))


def learn(rate: float, streams: Sequence[Seen], allowed: Allowance, seconds: float) -> float:
    """The link's speed in bytes a second, by what was believed and what has arrived since."""
    busy = [stream for stream in streams if stream.busy]
    measured = sum(stream.arrived_bytes for stream in busy) / seconds
    unsent = sum(stream.unsent_bytes for stream in busy)
    if not busy or unsent < len(busy) * allowed.unsent_bytes * WAITING_SHARE:
        return max(rate * PROBE, measured)
    return measured if math.isinf(rate) else (rate + measured) / 2
