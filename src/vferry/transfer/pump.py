"""Moving bytes of one connection in one direction, unchanged. Each pump is one thread's work.

A pump holds at most one buffer, and nothing while its input idles: what was read is sent before it reads again.
"""

from collections.abc import Callable
from typing import NamedTuple

from vferry.transfer.stream import Stream
from vferry.transfer.wire import END, FRAME, FrameDecoder, WireError

# Larger buffers were not faster; this one stays in the processor's cache with a few channels.
BUFFER_BYTES = 256 * 1024

Count = Callable[[int], None]
# From, to, and what is told how much was carried.
Pump = Callable[[Stream, Stream, Count], None]


def pump_outward(local: Stream, peer: Stream, count: Count) -> None:
    """Carry what the local process writes to the peer gateway, and its half-close; raises OSError.

    `count` gets the size of each payload once it is sent.
    """
    frame = memoryview(bytearray(FRAME.size + BUFFER_BYTES))
    payload = frame[FRAME.size :]
    while size := local.recv_into(payload):
        FRAME.pack_into(frame, 0, size)
        peer.send(frame[: FRAME.size + size])
        count(size)
    peer.send(END)


def pump_inward(peer: Stream, local: Stream, count: Count) -> None:
    """Carry what comes from the peer gateway to the local process, and its half-close.

    Raises OSError, and `WireError` for a stream that is not frames or ends without the end frame.
    """
    buffer = memoryview(bytearray(BUFFER_BYTES))
    decoder = FrameDecoder()
    while not decoder.ended:
        size = peer.recv_into(buffer)
        if not size:
            raise WireError("the peer gateway ended the connection without an end frame")
        for payload in decoder.payloads(buffer[:size]):
            local.send(payload)
            count(len(payload))
    local.end()


class Pumps(NamedTuple):
    """How a connection is carried: outward from the local process to the peer gateway, and inward."""

    outward: Pump = pump_outward
    inward: Pump = pump_inward


AS_IS = Pumps()
