"""After a copy that did not end well: where the guest is, and letting it go on there, once and only there."""

import asyncio
import time
from contextlib import suppress
from typing import Any

from vferry.host.api import AbortMigration, Concede, Destroy, Host, Operation, R, ReadMigration, Resume, StopGateway
from vferry.migration.whereabouts import Seen, Verdict, decide, look
from vferry.model.problem import Exit, Problem
from vferry.plan.plan import Plan

_POLL_S = 0.2
_SILENCE_S = 60.0
"""For how long an agent may be silent: libvirt's migration goes on without it, and it is restarted."""
_ATTEMPTS = 3
"""How often a guest that is paused is told to go on, before the operator is asked."""
_LOOKS = 15
"""How often, a second apart, both hosts are asked for a guest that runs: libvirt may still be finishing."""

OVER = ("none", "completed", "failed")


class Settling:
    """Settles where one migration's guest goes on. Safe to repeat, by this controller or by another."""

    def __init__(self, plan: Plan, source: Host, destination: Host) -> None:
        self._plan = plan
        self._source = source
        self._destination = destination

    async def settle(self, *, completed: bool = False) -> Verdict:
        """SOURCE or DESTINATION: the guest runs there, and nothing goes on behind our back.

        `completed` when libvirt has said so. Raises `Problem` ``guest-uncertain`` when nobody can tell, or when it
        runs on both or on neither; nothing was resumed on a guess then.
        """
        verdict = Verdict.UNKNOWN
        for _ in range(_ATTEMPTS):
            # First no migration may go on, then it is asked where the guest is: else it might move in between.
            state = "completed" if completed else await self._stop()
            verdict = await self.where(held=state == "uncertain")
            if verdict is Verdict.DESTINATION:
                return verdict if completed else await self._concede()
            if verdict is Verdict.SOURCE and state in OVER:
                with suppress(Problem):  # paused remains, if libvirt has not ended them, nor anybody since
                    await self._destination.call(Destroy(guest=self._plan.guest))
                return verdict
            if verdict is Verdict.DESTINATION_PAUSED or (verdict is Verdict.SOURCE_PAUSED and state != "active"):
                await self._let_go_on(verdict, held=state == "uncertain")
            elif verdict not in (Verdict.SOURCE, Verdict.SOURCE_PAUSED):
                break
        raise uncertain(self._plan, verdict)

    async def keep_at(self, keeper: str) -> None:
        """Makes the operator's word true: the other host's remains go first, then the guest goes on at `keeper`.

        The other host may be silent. Problem ``guest-running`` where it says that the guest runs there.
        """
        guest = self._plan.guest
        if keeper == self._plan.destination:
            await _if_there(self._source, Concede(guest=guest))
            await self._destination.call(Resume(guest=guest))
            return
        await _if_there(self._destination, StopGateway())
        await _if_there(self._destination, Destroy(guest=guest))
        await self._source.call(StopGateway(resume=True))
        await self._source.call(Resume(guest=guest), timeout_s=60)

    async def where(self, *, held: bool = False) -> Verdict:
        """Asks until one host runs the guest, for a while. One that is `held` only the destination can still move."""
        verdict = Verdict.UNKNOWN
        for _ in range(_LOOKS):
            here, there = await look(self._source, self._plan.guest), await look(self._destination, self._plan.guest)
            verdict = decide(here, there)
            if verdict in (Verdict.SOURCE, Verdict.DESTINATION, Verdict.BOTH) or (held and there is Seen.OFF):
                return verdict
            await asyncio.sleep(1)
        return verdict

    async def _stop(self) -> str:
        """Makes sure that no migration goes on behind our back: its state, ``active`` where that is not sure.

        ``uncertain`` once nothing that the source's libvirt has said can arrive at the destination any more.
        """
        try:
            await self._abort()
            until = time.monotonic() + _SILENCE_S
            while (state := (await self._ask(ReadMigration(guest=self._plan.guest))).state) == "active":
                if time.monotonic() > until:
                    return "active"
                await asyncio.sleep(_POLL_S)
            if state == "uncertain":
                await patiently(self._destination, StopGateway())
        except Problem:
            return "active"
        return state

    async def _abort(self) -> None:
        try:
            await self._ask(AbortMigration(guest=self._plan.guest))
        except Problem as problem:
            if problem.code != "migration-ending":
                raise

    async def _concede(self) -> Verdict:
        """Ends what is left at the source, which may be held. Closing the gateways asks for that again."""
        try:
            await self._ask(Concede(guest=self._plan.guest))
        except Problem as problem:
            if problem.code == "guest-running":
                raise uncertain(self._plan, Verdict.BOTH) from problem
        return Verdict.DESTINATION

    async def _let_go_on(self, verdict: Verdict, *, held: bool) -> None:
        """Resumes the guest; whether that was done is not told by the answer, which may be lost, but asked again."""
        guest = self._plan.guest
        try:
            if verdict is Verdict.DESTINATION_PAUSED:
                await patiently(self._destination, Resume(guest=guest))
                return
            await self._clear_destination()
            if held:
                await self._ask(StopGateway(resume=True))  # libvirt then lets it go on by itself
            else:
                await self._ask(Resume(guest=guest))
        except Problem:
            return

    async def _clear_destination(self) -> None:
        try:
            await patiently(self._destination, Destroy(guest=self._plan.guest))
        except Problem as problem:
            if problem.code != "guest-unknown":
                raise

    async def _ask(self, operation: Operation[R]) -> R:
        return await patiently(self._source, operation)


async def _if_there(host: Host, operation: Operation[Any]) -> None:
    try:
        await host.call(operation)
    except Problem as problem:
        if problem.code not in ("guest-unknown", "host-unreachable"):
            raise


async def patiently(host: Host, operation: Operation[R]) -> R:
    """Asks a host until it answers, for as long as its agent may be down."""
    until = time.monotonic() + _SILENCE_S
    while True:
        try:
            return await host.call(operation)
        except Problem as problem:
            if problem.code != "host-unreachable" or time.monotonic() > until:
                raise
        await asyncio.sleep(1)


def uncertain(plan: Plan, verdict: Verdict) -> Problem:
    """What the operator must look at, with the one command for each answer."""
    said = {
        Verdict.BOTH: f"{plan.guest} runs on {plan.source} and on {plan.destination}",
        Verdict.NOWHERE: f"{plan.guest} runs on neither {plan.source} nor {plan.destination}",
    }.get(verdict, f"{plan.source} and {plan.destination} cannot tell together where {plan.guest} runs")
    how = (
        f"Look at both hosts (virsh domstate {plan.guest}), then say which one keeps it: "
        f"vferry operation recover {plan.operation} --guest-is-at {plan.source}, or "
        f"vferry operation recover {plan.operation} --guest-is-at {plan.destination}"
    )
    if verdict is Verdict.NOWHERE:
        how = f"If it was shut down: vferry operation recover {plan.operation}. Else l{how[1:]}"
    return Problem(
        "guest-uncertain",
        f"{said}; nothing was resumed on a guess",
        how,
        exit=Exit.OPERATOR,
        verdict=verdict.value,
    )
