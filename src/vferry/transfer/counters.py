"""What the blocks of a gateway have carried. Counted by the threads of all channels."""

import threading
from collections import Counter, defaultdict
from typing import Any, NamedTuple


class BlockCount(NamedTuple):
    """One block: bytes of the stream in it, bytes on the wire with its header, pages by what became of them."""

    codec: str
    stream_bytes: int
    wire_bytes: int
    pages: int = 0
    zero_pages: int = 0
    delta_pages: int = 0
    resident_pages: int = 0
    in_software: bool = False
    """Done in software by a codec that is there for its hardware."""


class Counters:
    """Sums of blocks, and by codec."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: Counter[str] = Counter()
        self._codecs: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._delta_memory = 0

    def reserve(self, size: int) -> None:
        """Take note of so many bytes for page copies of one session."""
        with self._lock:
            self._delta_memory = max(self._delta_memory, size)

    def add(self, block: BlockCount) -> None:
        """Count a block that was sent, or received and found right."""
        with self._lock:
            codec = self._codecs[block.codec]
            for sums in (self._sums, codec):
                sums["blocks"] += 1
                sums["stream_bytes"] += block.stream_bytes
                sums["wire_bytes"] += block.wire_bytes
            self._sums["pages"] += block.pages
            self._sums["zero_pages"] += block.zero_pages
            self._sums["delta_pages"] += block.delta_pages
            self._sums["resident_pages"] += block.resident_pages
            if block.in_software:
                codec["software_blocks"] += 1

    def so_far(self) -> dict[str, Any] | None:
        """The sums of bytes alone, which are told every second; None if there was no block."""
        with self._lock:
            if not self._sums["blocks"]:
                return None
            return _with_ratio(Counter({name: self._sums[name] for name in ("stream_bytes", "wire_bytes")}))

    def report(self) -> dict[str, Any] | None:
        """The sums; None if there was no block.

        `pages` are those of multifd packets with `zero_pages`, `delta_pages` and `resident_pages` among them; what
        comes in another stream is not known to be pages. `ratio` is the stream's size to the wire's. A codec has
        `software_blocks` if it is there for its hardware and did some without. `delta_memory_bytes` is the most that
        page copies could take.
        """
        with self._lock:
            if not self._sums["blocks"]:
                return None
            codecs = {name: _with_ratio(sums) for name, sums in sorted(self._codecs.items())}
            return {**_with_ratio(self._sums), "delta_memory_bytes": self._delta_memory, "codecs": codecs}


def _with_ratio(sums: Counter[str]) -> dict[str, Any]:
    return {**sums, "ratio": round(sums["stream_bytes"] / sums["wire_bytes"], 3)}
