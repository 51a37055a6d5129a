"""What the blocks of a gateway have carried. Counted by the threads of all channels."""

import threading
from collections import Counter
from typing import Any, NamedTuple


class BlockCount(NamedTuple):
    """One block: bytes of the stream in it, bytes on the wire with its header, pages by what became of them."""

    codec: str
    stream_bytes: int
    wire_bytes: int
    pages: int = 0
    zero_pages: int = 0
    delta_pages: int = 0


class Counters:
    """Sums of blocks, and by codec."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: Counter[str] = Counter()
        self._codecs: dict[str, Counter[str]] = {}

    def add(self, block: BlockCount) -> None:
        """Count a block that was sent, or received and found right."""
        codec, stream_bytes, wire_bytes, *pages = block
        with self._lock:
            for sums in (self._sums, self._codecs.setdefault(codec, Counter())):
                sums.update(blocks=1, stream_bytes=stream_bytes, wire_bytes=wire_bytes)
            for name, count in zip(("pages", "zero_pages", "delta_pages"), pages, strict=True):
                self._sums[name] += count

    def report(self) -> dict[str, Any] | None:
        """The sums; None if there was no block.

        `pages` are those of multifd packets with `zero_pages` and `delta_pages` among them; what comes in another
        stream is not known to be pages. `ratio` is the stream's size to the wire's.
        """
        with self._lock:
            if not self._sums["blocks"]:
                return None
            codecs = {name: _with_ratio(sums) for name, sums in sorted(self._codecs.items())}
            return {**_with_ratio(self._sums), "codecs": codecs}


def _with_ratio(sums: Counter[str]) -> dict[str, Any]:
    return {**sums, "ratio": round(sums["stream_bytes"] / sums["wire_bytes"], 3)}
