"""Moving bytes of one connection in one direction, unchanged. Each pump is one thread's work.

A pump holds at most `HELD_BYTES`, towards the other host as much as is allowed at the moment, and nothing while its
input idles: what was taken is given on before it takes again.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from vferry.transfer.allowance import Allowance
from vferry.transfer.frame import CUT_OFF, next_frame
from vferry.transfer.passage import HELD_BYTES, Passage, passage
from vferry.transfer.stream import Stream
from vferry.transfer.wire import END, FRAME, WireError

Count = Callable[[int], None]
# From, to, and what is told how much was carried.
Pump = Callable[[Stream, Stream, Count], None]


def pump_outward(local: Stream, peer: Stream, count: Count, allowed: Callable[[], Allowance] = Allowance) -> None:
    """Carry what the local process writes to the peer gateway, and its half-close; raises OSError.

    `count` gets the size of each payload once it is sent.
    """
    with passage(local, peer) as way:
        while size := way.take(min(HELD_BYTES, allowed().block_bytes)):
            way.give(FRAME.pack(size))
            count(size)
    peer.send(END)


def pump_inward(peer: Stream, local: Stream, count: Count) -> None:
    """Carry what comes from the peer gateway to the local process, and its half-close.

    Raises OSError, and `WireError` for a stream that is not frames or ends without the end frame.
    """
    with passage(peer, local) as way:
        while size := next_frame(peer):
            give_all(way, size, count)
    local.end()


def give_all(way: Passage, size: int, count: Count) -> None:
    """Pass exactly so many bytes on; raises OSError, `WireError` where the source ends before."""
    while size:
        taken = way.take(size)
        if not taken:
            raise WireError(CUT_OFF)
        way.give()
        count(taken)
        size -= taken


def _nothing() -> None:
    """Bytes as they are go over no further streams."""


class Pumps(NamedTuple):
    """How a connection is carried: outward from the local process to the peer gateway, and inward."""

    outward: Pump = pump_outward
    inward: Pump = pump_inward
    wake: Callable[[], None] = _nothing
    """Has the connection's further streams return, from any thread."""


AS_IS = Pumps()


def as_is(allowed: Callable[[], Allowance]) -> Pumps:
    """Bytes as they are, of which no more are held than is allowed at the moment."""
    return Pumps(partial(pump_outward, allowed=allowed))
