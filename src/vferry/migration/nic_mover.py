"""Carrying the move of a running guest's NIC out, or back: whichever it is, the guest has one NIC with its path."""

from collections.abc import Mapping

from vferry.host.api import Host
from vferry.migration.record import Observer
from vferry.migration.stepper import PATIENCE_S, Ending, Journal, Stepper, advice
from vferry.model.problem import Exit
from vferry.network import nic
from vferry.network.step import Step
from vferry.plan.nic_plan import NicMove


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
        self._stages = nic.stages(move)

    async def run(self) -> Ending:
        """Carries the move out. Never raises a `Problem`: what went wrong is in the ending."""
        touched, failed = await self._forward(self._stages.before, abortable=False)
        if failed is None:
            return await self.finish()
        return await self.take_back(failed.detail, touched)

    async def finish(self) -> Ending:
        """What is left to be done once the guest has its new NIC alone."""
        records = await self._all(self._stages.after)
        notes = tuple(advice(record) for record in records if not record.ok)
        return self._ending(Exit.OPERATOR if notes else Exit.DONE, "", notes, there=True)

    async def take_back(self, why: str, touched: tuple[Step, ...] | None = None) -> Ending:
        """Gives the guest the NIC back that it had; undoes all steps where it is not said which were begun."""
        records = await self._undo(self._stages.before if touched is None else touched)
        notes = tuple(advice(record) for record in records if not record.ok)
        return self._ending(Exit.OPERATOR if notes else Exit.UNDONE, why, notes, there=False)

    def _ending(self, code: Exit, reason: str, notes: tuple[str, ...], *, there: bool) -> Ending:
        return Ending(exit=code, reason=reason, records=tuple(self._records), at_destination=there, notes=notes)
