"""Moves of guests' NICs as operations: what is kept of one until its end, so that whoever comes after goes on by it."""

import time
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Any

import msgspec
from msgspec.structs import replace

from vferry.controller import operations
from vferry.controller.operations import RUNNING, OperationFolder, OperationState
from vferry.controller.room import NoRoom, forgotten_without_room, free_reserve, reserve, room
from vferry.controller.state import State
from vferry.controller.stepping import Tell
from vferry.host.api import Define, JoinRelay, LeaveRelay, Migration, SetForwarding, SetVf
from vferry.host.durable import write_durably
from vferry.migration.nic_mover import left_of
from vferry.migration.nic_report import make_nic_report
from vferry.migration.record import StepRecord, now_text
from vferry.migration.stepper import Ending
from vferry.model.problem import Exit, Problem
from vferry.model.report import Kind, Phase, Report, Stall
from vferry.plan.host_step import HostStep
from vferry.plan.nic_plan import NicPlan

_FILE = "move.json"


class Way(StrEnum):
    """What is to be done with a move that is found."""

    PLANNED = "planned"
    """Nothing yet: no step was begun."""
    THERE = "there"
    """It was begun. Where the guest ran, its journal says how far it is, there or back; where not, its host does."""
    BACK = "back"
    """It could not be taken back whole."""
    REST = "rest"
    """The guest has its new NIC, and something else was not put in order."""


_Asked = Define | JoinRelay | LeaveRelay | SetForwarding | SetVf
"""What a NIC's move asks of the host of a guest that is off."""


class KeptStep(msgspec.Struct, frozen=True, kw_only=True):
    """A `HostStep`, as it can be read again."""

    name: str
    summary: str
    apply: tuple[_Asked, ...]
    undo: tuple[_Asked, ...] = ()


class KeptMove(msgspec.Struct, frozen=True, kw_only=True):
    """One move; the steps of its plan, if the guest is off, are kept beside it."""

    plan: NicPlan
    steps: tuple[KeptStep, ...] = ()
    way: Way = Way.PLANNED
    left: tuple[str, ...] = ()
    """The steps that are still to be taken back, where the guest runs."""
    runs: int = 0
    """How often it was carried out, there or back, to an end that was none."""

    @property
    def whole(self) -> NicPlan:
        """The plan with its steps."""
        steps = (HostStep(name=s.name, summary=s.summary, apply=s.apply, undo=s.undo) for s in self.steps)
        return replace(self.plan, steps=tuple(steps))


def find(state: State, operation: str) -> KeptMove | None:
    """What this machine's controllers have begun, and not ended; None where it is nothing, or was another's."""
    folder = operations.named(state, operation)
    return read(folder) if folder.is_there() and folder.is_open() else None


def read(folder: OperationFolder) -> KeptMove:
    """What is kept of a move."""
    return msgspec.json.decode((folder.root / _FILE).read_bytes(), type=KeptMove)


def begin(folder: OperationFolder, plan: NicPlan, epoch: int) -> KeptMove:
    """Writes a move down before anything is claimed; one that was begun is kept as it is until `set_out`.

    The caller holds its lock. Raises `NoRoom`, and leaves no folder then of one that was not begun.
    """
    if not folder.is_there():
        with forgotten_without_room(folder.root), room():
            reserve(folder.root)
            kept = _kept(folder, _planned(plan, Way.PLANNED))
            folder.write_state(_first_state(plan, epoch))
        return kept
    kept = read(folder)
    with room():
        reserve(folder.root)
        folder.write_state(replace(folder.stored(), epoch=epoch))
    # A guest that is off may be asked for something else meanwhile, and goes there from where it is.
    anew = kept.way is Way.PLANNED or plan.move is None
    return _planned(plan, kept.way) if anew else kept


def set_out(folder: OperationFolder, kept: KeptMove) -> KeptMove:
    """From now on something is done, or gone on with. Raises `NoRoom`."""
    state = replace(folder.stored(), status=RUNNING, exit=None, phase=Phase.PREPARE, to=kept.plan.to.value)
    with room():
        folder.write_state(state)
        return _kept(folder, replace(kept, way=Way.THERE) if kept.way is Way.PLANNED else kept)


def end(folder: OperationFolder, kept: KeptMove, ending: Ending) -> None:
    """Writes the report, and what is left to be done, with the room that was kept for it. Raises `NoRoom`."""
    was = folder.stored()
    report = make_nic_report(kept.plan, ending, was.started, time.monotonic() - was.began)
    free_reserve(folder.root)
    with room():
        _write_end(folder, kept, ending, report)


def _write_end(folder: OperationFolder, kept: KeptMove, ending: Ending, report: Report) -> None:
    if ending.exit is Exit.OPERATOR and kept.plan.move:
        way, left = Way.REST if ending.at_destination else Way.BACK, left_of(kept.plan.move, ending, kept.left)
        _kept(folder, replace(kept, way=way, left=left, runs=kept.runs + 1))
    folder.write_report(report)
    folder.write_state(
        replace(folder.stored(), status=report.status.value, phase=Phase.DONE, step=None, exit=int(ending.exit))
    )


def refuse(folder: OperationFolder, kept: KeptMove, problem: Problem) -> None:
    """Ends a move of which nothing was begun."""
    refused = Ending(exit=Exit.REFUSED, reason=problem.message, records=(), at_destination=False)
    end(folder, kept, refused)


class Told:
    """An observer that has each step said as it begins, in words, and shown to other processes."""

    def __init__(self, folder: OperationFolder, summaries: Mapping[str, str], tell: Tell) -> None:
        self._folder = folder
        self._summaries = summaries
        self._tell = tell

    def say(self, words: str) -> None:
        """Whatever it is at."""
        self._show(step=words)
        self._tell(words)

    def phase(self, phase: Phase) -> None:
        self._show(phase=phase)

    def started(self, phase: Phase, name: str, host: str) -> None:
        undone = name.removeprefix("undo ")
        if summary := self._summaries.get(undone):
            self.say(summary if undone == name else f"undo: {summary}")

    def ended(self, record: StepRecord) -> None:
        pass

    def progress(self, migration: Migration) -> None:
        pass

    def stalled(self, stall: Stall) -> None:
        pass

    def _show(self, **what: Any) -> None:
        # Where there is no room others see an earlier step; the guest need not wait for that.
        with suppress(NoRoom), room():
            self._folder.write_state(replace(self._folder.stored(), **what))


def _planned(plan: NicPlan, way: Way) -> KeptMove:
    steps = msgspec.convert(msgspec.to_builtins(plan.steps), tuple[KeptStep, ...])
    return KeptMove(plan=replace(plan, steps=()), steps=steps, way=way)


def _kept(folder: OperationFolder, kept: KeptMove) -> KeptMove:
    """Writes it down, durably, in place of what was kept."""
    write_durably(folder.root / _FILE, msgspec.json.encode(kept))
    return kept


def _first_state(plan: NicPlan, epoch: int) -> OperationState:
    return OperationState(
        operation=plan.operation,
        guest=plan.guest,
        source=plan.host,
        destination=plan.host,
        status=RUNNING,
        phase=Phase.CHECK,
        started=now_text(),
        epoch=epoch,
        began=time.monotonic(),
        measured=False,
        kind=Kind.NIC,
        mac=plan.mac,
        to=plan.to.value,
    )
