"""Huge pages of a NUMA node, through sysfs."""

from pathlib import Path

from vferry.host.api import Done, SetHugePages
from vferry.host.relay_ground import own_pages, pool_path, read_number
from vferry.host.sysfs import Write, write_attribute
from vferry.model.problem import Exit, Problem

COUNT = "nr_hugepages"


def set_huge_pages(root: Path, wanted: SetHugePages, write: Write = write_attribute) -> Done:
    """Carries `SetHugePages` out. Problem ``huge-pages-refused``."""
    pool = pool_path(root, wanted.node, wanted.size_kib)
    if not (pool / COUNT).exists():
        raise _refused(wanted, "the kernel has none of this size there")
    before = own_pages(pool)
    if wanted.instead_of is not None:
        return _fewer(pool, wanted, before, write)
    if before >= wanted.count:
        return Done(changed=False)
    _write(pool, wanted, wanted.count, write)
    after = own_pages(pool)
    if after < wanted.count:
        _write(pool, wanted, before, write)
        raise _refused(wanted, f"there is memory for {after} only, of {wanted.size_kib} KiB each")
    return Done(detail=f"{after} instead of {before}")


def _fewer(pool: Path, wanted: SetHugePages, before: int, write: Write) -> Done:
    if before <= wanted.count:
        return Done(changed=False)
    if before != wanted.instead_of:
        return Done(changed=False, detail=f"there are {before}, which is not what the relay has made: left as they are")
    _write(pool, wanted, wanted.count, write)
    after = read_number(pool / COUNT)
    kept = f"; {after - wanted.count} are in use and go when they are given back" if after > wanted.count else ""
    return Done(detail=f"{wanted.count} instead of {before}{kept}")


def _write(pool: Path, wanted: SetHugePages, count: int, write: Write) -> None:
    try:
        write(pool / COUNT, str(count))
    except OSError as error:
        raise _refused(wanted, error.strerror or str(error)) from error


def _refused(wanted: SetHugePages, why: str) -> Problem:
    return Problem(
        "huge-pages-refused",
        f"NUMA node {wanted.node} cannot have {wanted.count} huge pages of {wanted.size_kib} KiB: {why}",
        "Free memory there, or set them aside at the boot (hugepages= on the kernel's command line)",
        exit=Exit.REFUSED,
        node=wanted.node,
    )
