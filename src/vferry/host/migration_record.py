"""What an operation's migration of a guest has come to, remembered across restarts of the agent."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from vferry.host.api import Migration
from vferry.host.durable import write_durably

log = logging.getLogger("vferry.agent")

FILE = "migration.json"

_unsaved: dict[Path, "Record"] = {}
"""By directory, what has become of migrations that could not be saved: libvirt tells the next agent most of it."""


class Record(Struct, frozen=True, kw_only=True):
    """One migration, in the operation's directory. Times are `time.monotonic()`: as the file, they last one boot."""

    operation: str
    guest: str
    uuid: str
    started: float
    state: str = "active"
    error: str | None = None
    bandwidth: int = 0
    """Bytes per second that were asked for; 0 is no limit."""
    downtime_ms: int = 0
    """How long the guest may be paused for its memory, as it was last set."""
    conceded: bool = False
    """The guest was ended here since it runs at the destination."""
    paused: float | None = None
    ended: float | None = None
    statistics: dict[str, float] = {}
    """The last figures known, by the names of `Migration`."""


def load(directory: Path) -> Record | None:
    """The record of an operation's directory; None when there is none, or it cannot be read."""
    try:
        saved = msgspec.json.decode((directory / FILE).read_bytes(), type=Record)
        return _unsaved.get(directory, saved)
    except (OSError, msgspec.DecodeError):
        _unsaved.pop(directory, None)
        return None


def save(directory: Path, record: Record) -> None:
    """Saves a migration that is about to start. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o711)
    write_durably(directory / FILE, msgspec.json.encode(record))
    _unsaved.pop(directory, None)


def update(directory: Path, record: Record) -> None:
    """Saves what has become of a migration, unless its operation has been forgotten meanwhile.

    Without room for it, it is remembered as long as this agent runs, and logged.
    """
    try:
        if (directory / FILE).exists():
            write_durably(directory / FILE, msgspec.json.encode(record))
    except FileNotFoundError:
        pass
    except OSError as error:
        log.error("what has become of the migration of %s is not saved: %s", record.guest, error)
        _unsaved[directory] = record
        return
    _unsaved.pop(directory, None)


def figures(job: Mapping[str, Any], *, completed: bool = False) -> dict[str, float]:
    """libvirt's job statistics by the names of `Migration`; what it does not say is left out."""
    names = {
        "total_bytes": ("memory_total", "data_total"),
        "remaining_bytes": ("memory_remaining", "data_remaining"),
        "sent_bytes": ("memory_processed", "data_processed"),
        "rate": ("memory_bps",),
        "dirty_rate": ("memory_dirty_rate",),
        "rounds": ("memory_iteration",),
        "throttle": ("auto_converge_throttle",),
        # Of a completed job, the figure without `net` has the difference of the two hosts' clocks in it.
        "pause_ms" if completed else "expected_pause_ms": ("downtime_net", "downtime") if completed else ("downtime",),
    }
    found = {}
    for name, keys in names.items():
        value = next((job[key] for key in keys if isinstance(job.get(key), int | float)), None)
        if value is not None:
            found[name] = value
    return found


def answer(record: Record) -> Migration:
    """A record as the API shows it."""
    now = time.monotonic()
    values = record.statistics

    def count(name: str) -> int:
        return int(values.get(name, 0))

    return Migration(
        state=record.state,
        error=record.error,
        total_bytes=count("total_bytes"),
        remaining_bytes=count("remaining_bytes"),
        sent_bytes=count("sent_bytes"),
        rate=values.get("rate", 0.0),
        dirty_rate=values.get("dirty_rate", 0.0),
        rounds=count("rounds"),
        throttle=count("throttle"),
        downtime_ms=record.downtime_ms,
        expected_pause_ms=values.get("expected_pause_ms"),
        pause_ms=values.get("pause_ms") if record.state == "completed" else None,
        device_bytes=count("device_bytes") if "device_bytes" in values else None,
        started_age_s=now - record.started,
        paused_age_s=None if record.paused is None else now - record.paused,
        ended_age_s=None if record.ended is None else now - record.ended,
    )
