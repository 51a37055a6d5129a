"""CPUs as Linux and libvirt list them: ``0-3,^2,8``."""

import re

MOST = 8192
"""The most CPUs that Linux counts (NR_CPUS)."""

PART = re.compile(r"(\^?)(\d{1,4})(?:-(\d{1,4}))?")


class CpuListError(ValueError):
    """What was read is no list of CPUs."""


def read_cpus(text: str) -> tuple[int, ...]:
    """The CPUs of a list, in order. `CpuListError`."""
    found: set[int] = set()
    for part in text.split(","):
        if not (word := part.strip()):
            continue
        match = PART.fullmatch(word)
        if match is None:
            raise CpuListError(f"{word[:40]!r} is no CPU")
        first, last = int(match[2]), int(match[3] or match[2])
        if last < first or last >= MOST:
            raise CpuListError(f"{word!r} is no CPU")
        each = range(first, last + 1)
        found = found.difference(each) if match[1] else found.union(each)
    return tuple(sorted(found))
