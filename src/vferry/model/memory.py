"""What a guest's memory is like, and what it will take to move it."""

from typing import Annotated

from msgspec import Meta, Struct, field

from vferry.model.compression import Codec, Count, Name
from vferry.model.guest import StateSize

PRESENT = 1 << 63
"""Of an entry of /proc/PID/pagemap (admin-guide/mm/pagemap.rst in Linux's documentation): the page is in memory."""

Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]


class CodecTrial(Struct, frozen=True, kw_only=True):
    """What a codec has made of a sample, in the gateways' blocks, without the pages that are zero."""

    ratio: Positive
    """Bytes of memory for each byte that came out."""
    rate: Positive
    """Bytes of memory per second, on one core, as it was then."""


class Sample(Struct, frozen=True, kw_only=True):
    """A look at some of a guest's memory."""

    pages: Annotated[int, Meta(ge=1)]
    """Of 4 KiB, looked at."""
    zero_pages: Count
    codecs: Annotated[dict[Name, CodecTrial], Meta(max_length=16)] = field(default_factory=dict)


LEAST_RECLAIMED = 16 << 20
"""Bytes; for less a guest's free memory is left alone."""


def reclaimable(memory: int, free: int) -> int:
    """Bytes of what a guest has free that its balloon may take for a moment: all but a reserve, or none.

    A sixteenth of its memory, and 32 MiB, are more than Linux keeps free by itself: it looks for none meanwhile.
    That more is free than there is, only the guest says.
    """
    taken = min(free, memory) - max(memory // 16, 32 << 20)
    return taken if taken >= LEAST_RECLAIMED else 0


class MemoryUse(Struct, frozen=True, kw_only=True):
    """What a running guest does with its memory; `notes` say why something is not known."""

    dirty_rate: Annotated[float, Meta(ge=0)] | None = None
    """Bytes per second that it writes, each page counted once a second."""
    sample: Sample | None = None
    free: Count | None = None
    """Bytes that the guest itself says are free; None where its balloon is not asked for statistics anyway."""
    notes: tuple[str, ...] = ()


class Estimate(Struct, frozen=True, kw_only=True):
    """How long a migration's copy would take, from what was measured before it. None is not known."""

    codec: Codec
    """What compresses; of `auto` the one that would serve best."""
    guest_bytes: int
    """Memory that is not known to be zero."""
    wire_bytes: int
    """What one pass over it puts on the wire."""
    dirty_rate: float | None
    link_rate: float | None
    """Bytes per second on the wire."""
    copy_rate: float | None
    """Bytes of memory per second, when it is compressed and neither limit nor codec is slower."""
    seconds: float | None
    """Until the guest is paused; None, too, when it never would be."""
    pause_ms: float | None
    """For what memory is left then, and for `device_ms`; the state of emulated devices comes on top."""
    converges: bool | None
    device_state: StateSize | None = None
    """Of the VFIO devices that migrate themselves; None where there are none, or nothing is known of it."""
    device_ms: float | None = None
    """For sending that; what their drivers take to read it, and to load it, comes on top."""
