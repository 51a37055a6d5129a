"""Reading frames from a stream of the peer gateway."""

from vferry.transfer.stream import Stream
from vferry.transfer.wire import END_LENGTH, FRAME, FRAME_LIMIT, WireError

CUT_OFF = "the peer gateway ended the connection without an end frame"


def next_frame(peer: Stream) -> int:
    """How many bytes the next frame has, 0 for the end frame; raises OSError, `WireError` where there can be none."""
    head = memoryview(bytearray(FRAME.size))
    fill(peer, head)
    size = int(FRAME.unpack(head)[0])
    if size == END_LENGTH:
        return 0
    if not 1 <= size <= FRAME_LIMIT:
        raise WireError(f"frame of {size} bytes, not of 1 to {FRAME_LIMIT}")
    return size


def fill(peer: Stream, rest: memoryview) -> None:
    """Read as much as there is room for; raises OSError, `WireError` where the stream ends before."""
    while rest:
        size = peer.recv_into(rest, whole=True)
        if not size:
            raise WireError(CUT_OFF)
        rest = rest[size:]
