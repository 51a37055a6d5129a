"""How far a migration is, for processes that do not drive it: a file beside its state, as long as it runs."""

from contextlib import suppress

import msgspec

from vferry.controller.operations import OperationFolder
from vferry.host.api import Migration
from vferry.model.report import Stall

FILE = "news.json"


class News(msgspec.Struct, frozen=True, kw_only=True):
    """What was last seen of it."""

    migration: Migration | None = None
    """Its copy."""
    stalls: tuple[Stall, ...] = ()
    """What was done as that stalled, whoever drove it."""
    lost: int | None = None
    """Probes."""
    gap_ms: float | None = None
    """For how long there has been no answer."""


def tell(folder: OperationFolder, news: News) -> None:
    """Replaces the news, in one go. Not durably, and a full disk is no fault: nothing hangs on them."""
    fresh = folder.root / f".{FILE}"
    with suppress(OSError):
        fresh.write_bytes(msgspec.json.encode(news))
        fresh.replace(folder.root / FILE)


def heard(folder: OperationFolder) -> News:
    """The last news; empty where there are none."""
    try:
        return msgspec.json.decode((folder.root / FILE).read_bytes(), type=News)
    except (OSError, msgspec.DecodeError):
        return News()
