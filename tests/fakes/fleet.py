"""A fleet of hosts in memory: the `Host` protocol with an agent's rules, faults on demand, invariants after each call.

A call takes a little time on the loop's clock, as does a migration, which goes on whether somebody looks or not.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fakes import invariants, moving
from fakes.agent import answer
from fakes.world import HostState, Machine, MemoryClaims
from vferry.host.api import Host, Operation, R, Session
from vferry.model.guest import GuestState
from vferry.model.ovn import NORTHBOUND
from vferry.model.problem import Exit, Problem

CALL_S = 0.01
SILENCE_S = 5.0
FOREVER_S = 1e9


class Inconsistent(AssertionError):  # noqa: N818 - it is what the fleet is then
    """An invariant does not hold, or an agent was asked for what no vferry may ask."""


class Instead(Exception):  # noqa: N818 - no error: an answer
    """Raised by a fault before a call's effect: this is answered, and nothing is done."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer


@dataclass(frozen=True)
class Call:
    """One call, by its place among all calls of a fleet."""

    number: int
    host: str
    operation: Operation[Any]


@dataclass
class Fault:
    """Something that happens at a call, before its effect or after it: `act` may raise, or change the fleet."""

    when: Callable[[Call], bool]
    act: Callable[["Fleet", Call], None]
    after: bool = False
    times: int = 1


class Fleet:
    """Hosts by name, what was asked of them, and the faults that are still to come."""

    def __init__(self, hosts: Iterable[HostState], *, never_dark: Iterable[str] = ()) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.never_dark = frozenset(never_dark)
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.northbound = HostState(NORTHBOUND, {}, MemoryClaims(0))
        """OVN's database, which is asked as a host is."""
        self.pace = moving.Pace()
        self.held: set[str] = set()
        """The aliases of devices that guests do not give back."""

    def host(self, name: str, operation: str, epoch: int = 1) -> Host:
        """A host as the controller of an operation sees it."""
        return FakeHost(self, name, Session(operation=operation, epoch=epoch))

    def session(self, operation: str, epoch: int = 1) -> Session:
        return Session(operation=operation, epoch=epoch)

    def named(self, name: str) -> HostState:
        """A host, or what is asked as one."""
        return self.northbound if name == NORTHBOUND else self.hosts[name]

    def running(self, guest: str) -> list[str]:
        """The hosts that run a guest."""
        machines = ((host.name, host.machines.get(guest)) for host in self.hosts.values())
        return [name for name, machine in machines if machine and machine.state is GuestState.RUNNING]

    def machine(self, guest: str) -> tuple[HostState, Machine]:
        """A guest that runs, with its host."""
        (name,) = self.running(guest)
        return self.hosts[name], self.hosts[name].machines[guest]

    def check(self) -> None:
        """Raises `Inconsistent` when an invariant does not hold now."""
        found = invariants.broken(self.hosts.values(), self.never_dark)
        if found:
            last = self.calls[-1] if self.calls else None
            raise Inconsistent(f"{'; '.join(found)} (after {last})")

    def kill(self, name: str) -> None:
        """A host dies, with the guests on it."""
        host = self.named(name)
        host.dead, host.down_until = True, FOREVER_S
        host.machines.clear()

    async def serve(self, name: str, operation: Operation[R], session: Session) -> R:
        call = Call(len(self.calls), name, operation)
        self.calls.append(call)
        loop = asyncio.get_running_loop()
        host = self.named(name)
        await asyncio.sleep(CALL_S)
        moving.advance(self.hosts, self.pace, loop.time())
        try:
            self._happen(call, after=False)
        except Instead as instead:
            other: R = instead.answer  # type: ignore[assignment]
            return other
        await self._reach(host)
        try:
            given: R = answer(self.hosts, host, operation, session, held=self.held, now=loop.time())
        finally:
            self.check()
            self._happen(call, after=True)
            await self._reach(host)
        return given

    def _happen(self, call: Call, *, after: bool) -> None:
        for fault in self.faults:
            if fault.times and fault.after == after and fault.when(call):
                fault.times -= 1
                fault.act(self, call)

    async def _reach(self, host: HostState) -> None:
        if host.down_until > asyncio.get_running_loop().time():
            await asyncio.sleep(SILENCE_S)
            raise unreachable(host.name)


class FakeHost:
    """One host of a fleet, for one session."""

    def __init__(self, fleet: Fleet, name: str, session: Session) -> None:
        self._fleet = fleet
        self._name = name
        self._session = session

    @property
    def name(self) -> str:
        return self._name

    async def call(self, operation: Operation[R], *, timeout_s: float = 30.0) -> R:
        assert timeout_s > 0
        return await self._fleet.serve(self._name, operation, self._session)


def unreachable(host: str) -> Problem:
    return Problem("host-unreachable", f"{host} does not answer", "Look at its agent", exit=Exit.OPERATOR)
