"""Moves of running guests' NICs as they are kept until their end: whoever comes after a crash goes on by this."""

from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path

import msgspec

from vferry.controller.locks import held
from vferry.controller.state import State
from vferry.host.durable import sync_directory, write_durably
from vferry.model.problem import Exit, Problem
from vferry.plan.nic_plan import NicMove


class Way(StrEnum):
    """What is to be done with a move that is found."""

    PLANNED = "planned"
    """Nothing yet: no step was begun."""
    THERE = "there"
    """Its journal says how far it is, there or back."""
    BACK = "back"
    """It could not be taken back whole."""
    REST = "rest"
    """The guest has its new NIC, and something else was not put in order."""


class KeptMove(msgspec.Struct, frozen=True, kw_only=True):
    """One move, and what it claims on its host."""

    operation: str
    vfs: tuple[str, ...]
    move: NicMove
    way: Way = Way.PLANNED


def find(state: State, operation: str) -> KeptMove | None:
    """What this machine's controllers have begun; None where it is nothing, or was begun by another's."""
    try:
        return msgspec.json.decode(_path(state, operation).read_bytes(), type=KeptMove)
    except FileNotFoundError:
        return None


def keep(state: State, kept: KeptMove) -> None:
    """Writes a move down, durably, in place of what was kept of it."""
    write_durably(_path(state, kept.operation), msgspec.json.encode(kept))


def forget(state: State, operation: str) -> None:
    """Nothing is left to be done of a move."""
    for path in (_path(state, operation), _lock(state, operation)):
        path.unlink(missing_ok=True)
    sync_directory(state.nics)


def driven(state: State, operation: str) -> AbstractContextManager[None]:
    """Holds a move's lock; Problem ``operation-running`` if another process does."""
    state.nics.mkdir(parents=True, exist_ok=True, mode=0o700)
    running = Problem(
        "operation-running", "Another process is moving this NIC", "Wait until it has ended", exit=Exit.REFUSED
    )
    return held(_lock(state, operation), running)


def _path(state: State, operation: str) -> Path:
    return state.nics / f"{operation}.json"


def _lock(state: State, operation: str) -> Path:
    return state.nics / f"{operation}.lock"
