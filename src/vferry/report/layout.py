"""Where things go in a picture: labels that must not overlap, and buckets wide enough to be seen."""

from collections.abc import Sequence

from vferry.model.report import ProbeBuckets

MOST_BUCKETS = 400


def coarser(probes: ProbeBuckets, most: int = MOST_BUCKETS) -> ProbeBuckets:
    """The same probes in at most `most` buckets: a bar narrower than a pixel would hide what was lost."""
    step = max(1, -(-len(probes.lost) // most))
    starts = range(0, len(probes.lost), step)
    slowest = [[value for value in probes.rtt_ms_max[at : at + step] if value is not None] for at in starts]
    return ProbeBuckets(
        bucket_ms=probes.bucket_ms * step,
        lost=[sum(probes.lost[at : at + step]) for at in starts],
        late=[sum(probes.late[at : at + step]) for at in starts],
        rtt_ms_max=[max(values, default=None) for values in slowest],
    )


def place(centres: Sequence[float], widths: Sequence[float], high: float, space: float) -> list[float]:
    """The left ends of labels from 0 to `high`: near their centres, in their order, `space` apart.

    Where there is too little room for all, the first ones leave it to the left.
    """
    lefts: list[float] = []
    edge = 0.0
    for centre, width in zip(centres, widths, strict=True):
        lefts.append(max(centre - width / 2, edge))
        edge = lefts[-1] + width + space
    edge = high
    for at in reversed(range(len(lefts))):
        lefts[at] = min(lefts[at], edge - widths[at])
        edge = lefts[at] - space
    return lefts
