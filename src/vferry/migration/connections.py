"""Tells the destination of the guest's connections as the source tracks them, before traffic of theirs gets there.

What the kernels track is found by the guest's addresses, what switches track in user space by its ports of OVN's.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from msgspec import to_builtins

from vferry.host.api import (
    MOST_PUT,
    Host,
    PutConnections,
    PutOutcome,
    PutPortConnections,
    ReadConnections,
    ReadPortConnections,
)
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
_ANSWERS_S = 1.0
"""For how long a guest is asked once more for what it has not told the agent, who asks for 3 s from its resume on."""
_LAST_OF_PORTS_S = 5.0
"""How long that may take in all, one waiting for the other: the guest runs, and has its network."""


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
        following = asyncio.create_task(self._follow()) if self._plan.tracked or self._plan.bound else None
        try:
            yield
        finally:
            if following is not None:
                following.cancel()
                await asyncio.wait((following,))
                with suppress(Exception, asyncio.CancelledError):  # but not what ends the controller
                    following.result()

    def paused(self) -> None:
        """The guest is paused: what is tracked of it now is all that there will be, and told of at once."""
        self._paused.set()

    async def last(self) -> tuple[str, dict[str, Any]]:
        """Tells of them for good, once the guest has gone on: in words, and for the report."""
        try:
            async with asyncio.timeout(_LAST_S):
                taken, why = await self._take(None)
        except (Problem, TimeoutError) as error:
            told = f"{self._plan.destination} may not know all of the guest's connections: {_said(error, _LAST_S)}"
            return told, {"notes": [f"{told}; a stateful filter there may end those"]}
        return _words(taken, why), {"connections": to_builtins(taken)}

    async def last_of_ports(self) -> tuple[str, dict[str, Any]]:
        """Has the destination's switch track those of ports of OVN's, once the guest has gone on."""
        try:
            async with asyncio.timeout(_LAST_OF_PORTS_S):
                found = await asyncio.gather(*(self._take_port(mac, _ANSWERS_S) for mac in self._plan.bound))
        except (Problem, TimeoutError) as error:
            if isinstance(error, Problem) and error.code == "relay-not-joined":
                return error.message, {}  # it has left the source: another controller was here before
            said = _said(error, _LAST_OF_PORTS_S)
            told = f"{self._plan.destination} may not track all of the guest's connections: {said}"
            return told, {"notes": [f"{told}; OVN's filters may end those"]}
        taken = sum((each for each, _ in found), Taken(taken=0))
        words = _words(taken, next((why for _, why in found if why), ""))
        data: dict[str, Any] = {"connections": to_builtins(taken)}
        if taken.refused or taken.left_out:
            data["notes"] = [f"Of the connections of the guest's ports of OVN's: {words}"]
        return words, data

    async def _follow(self) -> None:
        paused = False
        while not paused:
            began, paused = time.monotonic(), self._paused.is_set()
            if self._plan.tracked:
                with suppress(Problem):
                    await self._take(_LEASE_S)
            for mac in self._plan.bound:
                with suppress(Problem):
                    await self._take_port(mac, 0.0)
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

    async def _take_port(self, mac: str, wait_s: float) -> tuple[Taken, str]:
        """As `_take`, of one port."""
        guest = self._plan.guest
        found = await self._source.call(ReadPortConnections(guest=guest, mac=mac))
        put = PutOutcome()
        if found.connections:
            ask = PutPortConnections(guest=guest, mac=mac, connections=found.connections, wait_s=wait_s)
            put = await self._destination.call(ask, timeout_s=30 + wait_s)
        return Taken(taken=put.taken, refused=put.refused, left_out=found.left_out), put.why


def _said(error: Problem | TimeoutError, most_s: float) -> str:
    return error.message if isinstance(error, Problem) else f"that took more than {most_s:.0f} s"


def _words(taken: Taken, why: str) -> str:
    words = [f"{taken.taken:,} connection" + "s" * (taken.taken != 1)]
    words += [f"{taken.refused:,} refused: {why}"] if taken.refused else []
    words += [f"{taken.left_out:,} left out"] if taken.left_out else []
    return ", ".join(words)
