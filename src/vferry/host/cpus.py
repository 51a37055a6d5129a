"""CPUs, and NUMA nodes, as Linux and libvirt list them: ``0-3,^2,8``."""

import re

MOST = 1 << 16
"""More than Linux counts (NR_CPUS is 8,192 at most), or libvirt."""

PART = re.compile(r"(\^?)(\d{1,9})(?:-(\d{1,9}))?")


def read_cpus(text: str) -> tuple[int, ...]:
    """The numbers of a list, in order. What is none, or beyond `MOST`, is passed over."""
    found: set[int] = set()
    for part in text.split(","):
        match = PART.fullmatch(part.strip())
        if match is None:
            continue
        first, last = int(match[2]), int(match[3] or match[2])
        each = range(first, min(last + 1, MOST))
        found = found.difference(each) if match[1] else found.union(each)
    return tuple(sorted(found))
