"""Carrying the move of a running guest's NIC out, or back: whichever it is, the guest has one NIC with its path.

A guest that is shut down or started anew meanwhile has what it is defined with then, and nothing that was plugged: what
is done in it is left out from there on, since a device of it may have the name of one that was to be unplugged.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from vferry.host.api import Host, Operation, ReadDefinition, ShowGuest
from vferry.migration.record import Observer, Outcome
from vferry.migration.stepper import IN_GUEST, PATIENCE_S, Acted, Ending, Journal, Stepper, advice, left_out
from vferry.model.problem import Exit, Problem
from vferry.model.report import Phase
from vferry.network import nic
from vferry.network.step import Step
from vferry.plan.nic_plan import NicMove, defined_on


def left_of(move: NicMove, ending: Ending, begun: Collection[str] = ()) -> tuple[str, ...]:
    """The names of the steps that were begun, before or since, and are not taken back.

    One that is taken back is not to be again: on its way by a VF the NIC was elsewhere when that was right.
    """
    done = {record.name for record in ending.records if record.outcome is not Outcome.UNDO_FAILED} | {*begun}
    undone = {record.name for record in ending.records if record.outcome is Outcome.UNDONE}
    return tuple(step.name for step in nic.stages(move).before if step.name in done - undone)


class NicMover(Stepper):
    """Carries one move out, from the first step or from where another controller left it.

    An ending is `at_destination` where the guest has the NIC that it was to have.
    """

    def __init__(
        self,
        move: NicMove,
        hosts: Mapping[str, Host],
        journal: Journal,
        observer: Observer,
        patience_s: float = PATIENCE_S,
    ) -> None:
        super().__init__(hosts, journal, observer, patience_s=patience_s)
        self._move = move
        self._stages = nic.stages(move)
        self._look = Step(phase=Phase.RESTORE, name="look-at-guest", host=move.swap.host, summary="look at the guest")
        self._onward = False
        """Whether it is on the way to what can still be taken back."""

    async def run(self) -> Ending:
        """Carries the move out. Never raises a `Problem`: what went wrong is in the ending."""
        self._onward = True
        touched, failed = await self._forward(self._stages.before, abortable=False)
        self._onward = False
        if failed is None:
            return await self.finish()
        return await self.take_back(failed.detail, {step.name for step in touched})

    async def finish(self) -> Ending:
        """What is left to be done once the guest has its new NIC alone."""
        records = await self._all(self._stages.after)
        notes = tuple(advice(record) for record in records if not record.ok)
        return self._ending(Exit.OPERATOR if notes else Exit.DONE, "", notes, there=True)

    async def take_back(self, why: str, begun: Collection[str]) -> Ending:
        """Gives the guest the NIC back that it had; `begun`: the names of the steps that are to be undone.

        One that was started anew with the new one keeps that.
        """
        seen = await self._once("apply", self._look, partial(self._apply, self._look, abortable=False))
        if not seen.ok:
            return self._ending(Exit.OPERATOR, why, (advice(seen),), there=False)
        if seen.data["new"]:
            return await self.finish()
        records = await self._undo(tuple(step for step in self._stages.before if step.name in begun))
        notes = tuple(advice(record) for record in records if not record.ok)
        return self._ending(Exit.OPERATOR if notes else Exit.UNDONE, why, notes, there=False)

    async def _act(self, step: Step, *, abortable: bool) -> Acted:
        if step is not self._look:
            return await super()._act(step, abortable=abortable)
        return "", {"new": not await self._still_runs(patient=True) and await self._is_defined()}

    async def _ask(self, host: str, operation: Operation[Any], *, patient: bool) -> Any:
        """On the way there, nothing is done to a guest that has been off; on the way back, what is not done in it."""
        concerned = self._onward or isinstance(operation, IN_GUEST)
        if concerned and not await self._still_runs(patient=patient):
            if self._onward:
                guest = self._move.swap.guest
                raise Problem("guest-restarted", f"{guest} was shut down or started anew meanwhile", "Ask again")
            return left_out(operation)
        return await super()._ask(host, operation, patient=patient)

    async def _still_runs(self, *, patient: bool) -> bool:
        """Whether the guest has not been off since this was planned."""
        swap = self._move.swap
        try:
            guest = await super()._ask(swap.host, ShowGuest(guest=swap.guest), patient=patient)
        except Problem as problem:
            if problem.code != "guest-unknown":
                raise
            return False
        return bool(guest.run == self._move.run)

    async def _is_defined(self) -> bool:
        """Whether the guest has the new NIC when it is started."""
        swap = self._move.swap
        definition = await super()._ask(swap.host, ReadDefinition(guest=swap.guest), patient=True)
        return defined_on(definition.persistent, swap.mac) is self._move.to

    def _ending(self, code: Exit, reason: str, notes: tuple[str, ...], *, there: bool) -> Ending:
        return Ending(exit=code, reason=reason, records=tuple(self._records), at_destination=there, notes=notes)
