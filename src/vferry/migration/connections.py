"""Tells the destination of the guest's connections as the source tracks them, before traffic of theirs gets there."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from msgspec import to_builtins

from vferry.host.api import MOST_PUT, Host, PutConnections, ReadConnections
from vferry.model.problem import Problem
from vferry.model.report import Connections as Taken
from vferry.plan.plan import Plan

_EVERY_S = 1.0
"""How long after one look the next one is taken, at least."""
_SHARE = 0.1
"""How much of the time may be spent looking, where there are many."""
_LEASE_S = 300
"""For how long the destination keeps what it was told before the guest came: it may never come."""
_LAST_S = 5.0
"""How long the last look may take: what comes after it are the announcements."""


class Connections:
    """The connections of one guest on its way. Nothing here fails, or holds up, the migration."""

    def __init__(self, plan: Plan, source: Host, destination: Host) -> None:
        self._plan = plan
        self._source = source
        self._destination = destination
        self._paused = asyncio.Event()

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Tells of them again and again meanwhile, until the guest is paused."""
        following = asyncio.create_task(self._follow()) if self._plan.tracked else None
        try:
            yield
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    def paused(self) -> None:
        """The guest is paused: what is tracked of it now is all that there will be, and told of at once."""
        self._paused.set()

    async def last(self) -> tuple[str, dict[str, Any]]:
        """Tells of them for good, once the guest has gone on: in words, and for the report."""
        try:
            async with asyncio.timeout(_LAST_S):
                taken, why = await self._take(None)
        except (Problem, TimeoutError) as error:
            said = error.message if isinstance(error, Problem) else f"that took more than {_LAST_S:.0f} s"
            told = f"{self._plan.destination} may not know all of the guest's connections: {said}"
            return told, {"notes": [f"{told}; a stateful filter there may end those"]}
        return _words(taken, why), {"connections": to_builtins(taken)}

    async def _follow(self) -> None:
        paused = False
        while not paused:
            began, paused = time.monotonic(), self._paused.is_set()
            with suppress(Problem):
                await self._take(_LEASE_S)
            took = time.monotonic() - began
            with suppress(TimeoutError):
                async with asyncio.timeout(max(_EVERY_S, took / _SHARE)):
                    await self._paused.wait()

    async def _take(self, lease_s: int | None) -> tuple[Taken, str]:
        """What became of all of them, and why the first was refused that was."""
        found = await self._source.call(ReadConnections(addresses=self._plan.tracked))
        taken, refused, why = 0, 0, ""
        for at in range(0, len(found.connections), MOST_PUT):
            some = found.connections[at : at + MOST_PUT]
            put = await self._destination.call(
                PutConnections(guest=self._plan.guest, connections=some, lease_s=lease_s)
            )
            taken, refused, why = taken + put.taken, refused + put.refused, why or put.why
        return Taken(taken=taken, refused=refused, left_out=found.left_out), why


def _words(taken: Taken, why: str) -> str:
    words = [f"{taken.taken:,} connection" + "s" * (taken.taken != 1)]
    words += [f"{taken.refused:,} refused: {why}"] if taken.refused else []
    words += [f"{taken.left_out:,} left out"] if taken.left_out else []
    return ", ".join(words)
