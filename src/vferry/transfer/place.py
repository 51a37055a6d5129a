"""Where on this host memory is whose pages the guest that comes may have, too."""

import re
from typing import NamedTuple

from vferry.transfer.multifd import PAGE_BYTES

_PLACE = re.compile(r"(\d+):([0-9a-f]+)-([0-9a-f]+)")


class Place(NamedTuple):
    """Memory of a process: its id, and addresses, in whole pages."""

    pid: int
    addresses: range


def parse_place(text: str) -> Place:
    """``PID:START-END``, the addresses in hexadecimal as in /proc/PID/maps. Raises ValueError."""
    match = _PLACE.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not PID:START-END")
    start, end = int(match[2], 16), int(match[3], 16)
    if start % PAGE_BYTES or end % PAGE_BYTES or not start < end < 1 << 63:
        raise ValueError(f"{text!r} are no whole pages")
    return Place(int(match[1]), range(start, end))
