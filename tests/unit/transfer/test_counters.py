"""What a gateway says of its blocks: every second, and at its end."""

import pytest

from vferry.transfer.counters import BlockCount
from vferry.transfer.statistics import Statistics

BLOCKS = (BlockCount("zstd", 3000, 1000, pages=7), BlockCount("lz4", 1800, 1000, pages=2))


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        (BLOCKS[:0], None),
        (BLOCKS[:1], {"stream_bytes": 3000, "wire_bytes": 1000, "ratio": 3.0}),
        (BLOCKS, {"stream_bytes": 4800, "wire_bytes": 2000, "ratio": 2.4}),
    ],
)
def test_so_far_it_is_the_bytes_and_their_ratio(blocks: tuple[BlockCount, ...], said: dict[str, float] | None) -> None:
    statistics = Statistics()
    for block in blocks:
        statistics.blocks.add(block)
    assert statistics.sample().get("compression") == said
    whole = statistics.report(rates=False).get("compression", {})
    assert (said or {}).items() <= whole.items(), "its last words say the same, and more"
