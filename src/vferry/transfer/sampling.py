"""What codecs make of a piece of memory, in blocks like those of a migration."""

import time
from collections.abc import Iterable, Iterator

import numpy as np

from vferry.model.compression import TRAITS
from vferry.model.memory import CodecTrial, Sample
from vferry.transfer.codecs import Codec, available, make_codec
from vferry.transfer.multifd import PACKET_PAGES, PAGE_BYTES

BLOCK_BYTES = PACKET_PAGES * PAGE_BYTES
LEAST_S = 1e-6


def sample_memory(memory: bytes, codecs: Iterable[str] | None = None) -> Sample | None:
    """Try codecs, or all that work here, on the pages of `memory` that are not zero; None if it is less than one page.

    Each is tried once, at the level that the gateways use, and what it does not make smaller counts as it is.
    """
    pages = np.frombuffer(memory, np.uint64, len(memory) // PAGE_BYTES * (PAGE_BYTES // 8)).reshape(-1, PAGE_BYTES // 8)
    if not len(pages):
        return None
    used = pages[pages.any(axis=1)]
    content = used.tobytes()
    names = sorted(available() if codecs is None else codecs)
    tried = {name: _try(make_codec(name), TRAITS[name].level, content) for name in names if name != "none"}
    found = {name: trial for name, trial in tried.items() if trial}
    return Sample(pages=len(pages), zero_pages=len(pages) - len(used), codecs=found)


def _try(codec: Codec, level: int, memory: bytes) -> CodecTrial | None:
    if not memory:
        return None
    begin = time.perf_counter()
    encoded = sum(min(len(codec.encode(block, level)), len(block)) for block in _blocks(memory))
    seconds = max(time.perf_counter() - begin, LEAST_S)
    return CodecTrial(ratio=round(len(memory) / encoded, 3), rate=round(len(memory) / seconds))


def _blocks(memory: bytes) -> Iterator[memoryview]:
    view = memoryview(memory)
    return (view[start : start + BLOCK_BYTES] for start in range(0, len(memory), BLOCK_BYTES))
