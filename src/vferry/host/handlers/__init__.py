"""What acts on this host: each operation of the API, led to the module that carries it out."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from msgspec import Struct

from vferry.host import api
from vferry.host.handlers import devices, guests, hosts, looking, moves, relays
from vferry.host.handlers.parts import Parts
from vferry.host.hypervisor_guests import describe_all
from vferry.model.problem import Problem

T = TypeVar("T")

log = logging.getLogger("vferry.agent")

THREADS = 32
"""How many calls may block at a time: several operations wait for an unplug or a script each."""

KINDS = (looking.work, hosts.work, devices.work, guests.work, relays.work, moves.work)


class Handlers:
    """Carries operations out, in threads. Whatever changes something needs a session that holds the claim on it."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="operation")
        self._pool.submit(parts.lent.take_back)  # what stopped while there was no agent
        self._pool.submit(self._hide_again)
        self._pool.submit(parts.balloons.give_all_back)

    async def handle(self, operation: api.Operation[Any], session: api.Session | None) -> Struct:
        """The answer to an operation. Raises `Problem`."""
        for kind in KINDS:
            work = kind(self.parts, operation, session)
            if work is not None:
                return await self._in_thread(work)
        raise Problem(
            "operation-unknown", f"This agent cannot do {type(operation).__name__}", "Update vferry on this host"
        )

    async def started(self) -> None:
        """Puts back what a restart of the host has taken away."""
        await self._in_thread(self.parts.restoring.restore)

    async def follow(self) -> None:
        """Puts back what a restart of Open vSwitch has taken away, where it has; asked for again and again."""
        await self._in_thread(self.parts.restoring.follow)
        await self._in_thread(self.parts.flows.follow)

    async def users_of(self, vfs: tuple[str, ...]) -> dict[str, str]:
        """The guests that have VFs, running or only defined, by the VFs' addresses."""

        def look() -> dict[str, str]:
            described = describe_all(self.parts.hypervisor, self.parts.root)
            found = {address: one.now.name for one in described for address in one.addresses}
            found |= self.parts.ports.users()
            return {address: guest for address, guest in found.items() if address in vfs}

        return await self._in_thread(look)

    async def released(self, operation_id: str) -> None:
        """Ends the gateway that an operation has left running, and forgets its migration. Problem ``guest-held``."""
        await self._in_thread(lambda: self.parts.balloons.release(operation_id))
        await self._in_thread(lambda: self.parts.held.release(operation_id))

    def close(self) -> None:
        """Waits for what is under way. Migrations and gateways go on."""
        self._pool.shutdown()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _hide_again(self) -> None:
        """For guests that are on their way since before this agent was started."""
        try:
            running = [each.live for each in describe_all(self.parts.hypervisor, self.parts.root) if each.live]
            nics = [(nic.interface, nic.mac) for xml in running for nic in xml.nics if nic.interface and nic.mac]
            self.parts.hiding.take_up(nics)
        except (Problem, OSError) as problem:
            log.warning("Whether VFs wait for the MACs of guests is not known: %s", problem)
