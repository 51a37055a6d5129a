"""One step of what is done to a host alone: a relay, a guest that is off."""

from typing import Any

from msgspec import Struct

from vferry.host.api import Operation


class HostStep(Struct, frozen=True, kw_only=True):
    """One line of what is done: `apply` is asked of the host, `undo` takes it back. Both are safe to repeat."""

    name: str
    summary: str
    apply: tuple[Operation[Any], ...]
    undo: tuple[Operation[Any], ...] = ()
