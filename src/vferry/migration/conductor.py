"""Carrying a plan out: its steps in order, its undo in reverse, and the point of no return between them."""

from collections.abc import Mapping
from typing import Any

from msgspec import to_builtins

from vferry.host.api import (
    Concede,
    GatewayStatistics,
    Host,
    Operation,
    StartReceiving,
    StartSending,
    StopGateway,
)
from vferry.migration.connections import Connections
from vferry.migration.copy import Copying
from vferry.migration.record import Aborted, Observer, Outcome, Requests, StepRecord
from vferry.migration.stepper import IN_GUEST, PATIENCE_S, Acted, Ending, Journal, Stepper, advice, left_out
from vferry.migration.whereabouts import Seen, look
from vferry.model.problem import Exit, Problem
from vferry.network import modes
from vferry.network.step import CloseGateways, Copy, OpenGateways, Step, TakeConnections, TakePortConnections
from vferry.plan.plan import Plan


class Conductor(Stepper):
    """Carries one plan out, from the first step or from where another controller left it."""

    def __init__(
        self,
        plan: Plan,
        hosts: Mapping[str, Host],
        journal: Journal,
        observer: Observer,
        requests: Requests | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        super().__init__(hosts, journal, observer, requests, patience_s)
        self._plan = plan
        self._guest_is_off = False

    async def run(self) -> Ending:
        """Carries the plan out. Never raises a `Problem`: what went wrong is in the ending."""
        stages = modes.stages(self._plan)
        touched, failed = await self._forward(stages.before)
        if failed is not None:
            return await self._fail(touched, failed)
        return await self._finish()

    async def finish(self, *, guest_is_off: bool = False) -> Ending:
        """Everything after the resume, for a guest that is at the destination, or is off and to be started there."""
        self._guest_is_off = guest_is_off
        return await self._finish()

    async def take_back(self, why: Problem, *, guest_is_off: bool = False) -> Ending:
        """Undoes everything before the copy, for a guest that is at the source, or is off and to be started there."""
        self._guest_is_off = guest_is_off
        before = modes.stages(self._plan).before
        return self._undone(await self._undo(before), why.exit, str(why))

    async def _finish(self) -> Ending:
        stages = modes.stages(self._plan)
        landed = await self._all(stages.landing)
        failed, unwound = await self._arrive(stages.arrival)
        restored = await self._all(stages.after)
        troubles = [record for record in (*landed, *unwound, *restored) if not record.ok]
        notes = tuple(advice(record) for record in troubles)
        degraded = "leftovers" if notes else None
        if failed is not None:
            dark = any(move.dark for move in self._plan.moves)
            degraded, words = ("no-vf", "without its VF") if dark else ("standby", "on its standby NIC")
            repair = f"When the cause is gone: vferry operation recover {self._plan.operation}"
            notes = (f"{self._plan.guest} is {words}: {failed.detail}", repair, *notes)
        return Ending(
            exit=Exit.OPERATOR if notes else Exit.DONE,
            reason=self._plan.reason,
            records=tuple(self._records),
            at_destination=True,
            degraded=degraded,
            notes=notes,
        )

    async def _arrive(self, arrival: tuple[Step, ...]) -> tuple[StepRecord | None, list[StepRecord]]:
        """The way back to a VF; answers the record of what failed, if anything, and how that way was undone."""
        touched, failed = await self._forward(arrival, abortable=False)
        return failed, [] if failed is None else await self._undo(touched)

    async def _fail(self, touched: tuple[Step, ...], failed: StepRecord) -> Ending:
        if failed.outcome is Outcome.UNCERTAIN:
            return Ending(
                exit=Exit.OPERATOR,
                reason=failed.detail,
                records=tuple(self._records),
                at_destination=False,
                notes=(failed.remedy,),
            )
        exit_code = Exit.ABORTED if failed.outcome is Outcome.ABORTED else Exit.UNDONE
        return self._undone(await self._undo(touched), exit_code, failed.detail)

    def _undone(self, undone: list[StepRecord], exit_code: Exit, reason: str) -> Ending:
        notes = [advice(record) for record in undone if not record.ok]
        if notes:
            notes.append(f"Then: vferry operation recover {self._plan.operation}")
        return Ending(
            exit=Exit.OPERATOR if notes else exit_code,
            reason=reason,
            records=tuple(self._records),
            at_destination=False,
            notes=tuple(notes),
        )

    async def _act(self, step: Step, *, abortable: bool) -> Acted:
        await self._refuse_started()
        match step:
            case Copy():
                # It may have been begun by a controller that died, and be over: it looks where the guest is first.
                return "", await self._copying().run()
            case _ if abortable and self._requests.abort_asked():
                raise Aborted
            case TakeConnections():
                return await self._connections().last()
            case TakePortConnections():
                return await self._connections().last_of_ports()
            case OpenGateways():
                return await self._open_gateways(step), {}
            case CloseGateways():
                return "", await self._close_gateways(step)
        return await super()._act(step, abortable=abortable)

    async def _ask(self, host: str, operation: Operation[Any], *, patient: bool) -> Any:
        if self._guest_is_off and isinstance(operation, IN_GUEST):
            return left_out(operation)
        return await super()._ask(host, operation, patient=patient)

    async def _act_back(self, step: Step) -> Acted:
        await self._refuse_started()
        if isinstance(step, OpenGateways):
            await self._close_gateways(step)
            return "", {}
        return await super()._act_back(step)

    async def _refuse_started(self) -> None:
        """Where nothing is asked of the guest, since it is off: nobody may start it meanwhile."""
        if not self._guest_is_off:
            return
        for name in (self._plan.source, self._plan.destination):
            if await look(self._hosts[name], self._plan.guest) in (Seen.RUNNING, Seen.PAUSED):
                raise Problem("guest-started", f"{self._plan.guest} was started on {name} meanwhile")

    def _goes_back(self, step: Step) -> bool:
        return isinstance(step, OpenGateways) or super()._goes_back(step)

    def _copying(self) -> Copying:
        source, destination = self._hosts[self._plan.source], self._hosts[self._plan.destination]
        return Copying(self._plan, source, destination, self._connections(), self._observer, self._requests)

    def _connections(self) -> Connections:
        return Connections(self._plan, self._hosts[self._plan.source], self._hosts[self._plan.destination])

    async def _open_gateways(self, step: OpenGateways) -> str:
        transfer = self._plan.transfer
        receive = StartReceiving(
            peer=step.host,
            delta_memory=transfer.delta_memory,
            resident=transfer.resident,
            direct=transfer.direct,
        )
        receiving = await self._hosts[step.destination].call(receive, timeout_s=120)
        sending = StartSending(
            peer=step.destination,
            address=receiving.address,
            port=receiving.port,
            token=receiving.token,
            codec=transfer.codec,
            streams=transfer.streams,
            delta_memory=transfer.delta_memory,
            direct=receiving.direct,
        )
        await self._hosts[step.host].call(sending, timeout_s=120)
        memory = f", memory to port {receiving.direct.port}" if receiving.direct else ""
        return f"{receiving.address}:{receiving.port}{memory}"

    async def _close_gateways(self, step: OpenGateways | CloseGateways) -> dict[str, Any]:
        """Both sides' figures together; the bytes are those that the sender put on the wire."""
        if isinstance(step, CloseGateways):
            # A guest that is still held at the source would go on there when its gateway ends.
            await self._ask(step.host, Concede(guest=self._plan.guest), patient=True)
        sent = await self._ask(step.host, StopGateway(), patient=True)
        received = await self._ask(step.destination, StopGateway(), patient=True)
        return {
            "wire_bytes": sent.wire_bytes or None,
            "compressed": to_builtins(sent.compressed or received.compressed),
            "cpu_s": _sum(sent, received, "cpu_s"),
            "cpu_peak": _sum(sent, received, "cpu_peak"),
        }


def _sum(sent: GatewayStatistics, received: GatewayStatistics, name: str) -> float | None:
    total = getattr(sent, name) + getattr(received, name)
    return total or None
