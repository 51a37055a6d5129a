"""Operations as other processes see them: a folder each, with small files that can be read while it runs."""

import secrets
from collections.abc import Container, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from vferry.controller.locks import held, is_held
from vferry.controller.room import forgotten_without_room, free_reserve, reserve, room
from vferry.controller.state import State
from vferry.host.durable import write_durably
from vferry.model.problem import Exit, Problem
from vferry.model.report import Kind, Phase, Report, Status
from vferry.plan.plan import Plan

RUNNING, INTERRUPTED = "running", "interrupted"


class OperationState(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `operation list`: a migration, or the move of a NIC.

    `status` is the report's once there is one, before that ``running``. ``interrupted`` means that no process drives it
    any more: `vferry operation recover` takes it up.
    """

    operation: str
    guest: str
    source: str
    destination: str
    status: str
    phase: Phase
    started: str
    epoch: int = 1
    began: float = 0.0
    """CLOCK_MONOTONIC of this machine, in seconds, for as long as it is not restarted."""
    phase_began: float | None = None
    """By the same clock."""
    exit: int | None = None
    measured: bool = True
    """Whether its interruption is to be measured."""
    probe_address: str | None = None
    probe_from: str | None = None
    probe_tcp: int | None = None
    """The port to which a TCP connection is to be watched."""
    kind: Kind = Kind.MIGRATION
    mac: str | None = None
    """Of the NIC that is put on `to`, if that is what it does; source and destination are the guest's host then."""
    to: str | None = None
    step: str | None = None
    """What it is at, in words, where phases do not say it."""


class OperationFolder:
    """One operation's files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def probes(self) -> Path:
        return self.root / "probes"

    def is_there(self) -> bool:
        """Whether the operation was begun: before its state is written, nobody sees it."""
        return (self.root / "state.json").exists()

    def is_open(self) -> bool:
        """Whether something is left to be done, by whoever drives it or by the next one."""
        was = self.stored()
        return was.status == RUNNING or was.exit == Exit.OPERATOR

    def plan(self) -> Plan:
        return msgspec.json.decode((self.root / "plan.json").read_bytes(), type=Plan)

    def report(self) -> Report | None:
        try:
            return msgspec.json.decode((self.root / "report.json").read_bytes(), type=Report)
        except FileNotFoundError:
            return None

    def state(self) -> OperationState:
        """As others see it: ``interrupted`` where it should run and no process holds its lock."""
        state = self.stored()
        if state.status != RUNNING or is_held(self.root / "lock"):
            return state
        state = self.stored()  # it may just have ended
        return msgspec.structs.replace(state, status=INTERRUPTED) if state.status == RUNNING else state

    def stored(self) -> OperationState:
        """As last written: what the holder of the lock goes by."""
        return msgspec.json.decode((self.root / "state.json").read_bytes(), type=OperationState)

    def write_plan(self, plan: Plan) -> None:
        self._write("plan.json", plan)

    def write_report(self, report: Report) -> None:
        self._write("report.json", report)

    def write_state(self, state: OperationState) -> None:
        self._write("state.json", state)

    def leave_journal(self) -> None:
        """Notes, by a file that is empty, that the journal has not all that was done: there was no room for it."""
        try:
            (self.root / "unjournaled").touch()
        except OSError:
            free_reserve(self.root)
            (self.root / "unjournaled").touch()

    def is_journaled(self) -> bool:
        return not (self.root / "unjournaled").exists()

    def ask_abort(self) -> None:
        """Sets the durable flag that the running step sees."""
        (self.root / "abort").touch()

    def abort_asked(self) -> bool:
        return (self.root / "abort").exists()

    def ask_bandwidth(self, bandwidth: int) -> None:
        """Limits the copy to so many bytes per second, durably; 0 lifts the limit."""
        write_durably(self.root / "bandwidth", str(bandwidth).encode())

    def bandwidth_asked(self) -> int | None:
        try:
            return int((self.root / "bandwidth").read_text())
        except FileNotFoundError:
            return None

    def driven(self) -> AbstractContextManager[None]:
        """Holds the operation's lock, in a folder that is made if need be.

        Problem ``operation-running`` if another process does.
        """
        taken = Problem(
            "operation-running",
            f"Operation {self.name} is being driven by another process",
            f"Follow it: vferry operation follow {self.name}",
            exit=Exit.REFUSED,
        )
        self.root.mkdir(mode=0o700, exist_ok=True)
        return held(self.root / "lock", taken)

    def _write(self, name: str, value: msgspec.Struct) -> None:
        write_durably(self.root / name, msgspec.json.format(msgspec.json.encode(value), indent=2))


def new_operation(state: State) -> str:
    """An id that is short enough to type; 32 random bits, and never one that is there already."""
    while (_root(state) / (name := f"op-{secrets.token_hex(4)}")).exists():
        continue
    return name


def create(state: State, plan: Plan) -> OperationFolder:
    """The folder of a new operation. Raises `NoRoom`, and leaves none then."""
    with room():
        folder = OperationFolder(_root(state) / plan.operation)
        folder.root.mkdir(mode=0o700)
    with forgotten_without_room(folder.root), room():
        (folder.root / "lock").touch(mode=0o600)
        reserve(folder.root)
        folder.write_plan(plan)
    return folder


def named(state: State, name: str) -> OperationFolder:
    """The folder of an operation that may have been begun before, or not."""
    return OperationFolder(_root(state) / name)


def find(state: State, name: str) -> OperationFolder:
    """Problem ``operation-unknown``."""
    for folder in every(state):
        if folder.name == name:
            return folder
    raise Problem("operation-unknown", f"There is no operation {name}", "List them: vferry operation list")


def every(state: State) -> list[OperationFolder]:
    """All operations, the oldest first."""
    folders = [folder for path in _root(state).iterdir() if (folder := OperationFolder(path)).is_there()]
    return sorted(folders, key=lambda folder: folder.state().started)


def to_recover(state: State) -> list[OperationFolder]:
    """Those that their controller left, or that need the operator; less those whose guest has been moved since."""
    found = [(folder, folder.state()) for folder in every(state)]
    states = [each for _, each in found]
    return [folder for folder, each in found if _is_open(each) and _successor(each, states) is None]


def refuse_ended(state: State, folder: OperationFolder) -> None:
    """Problem ``nothing-to-recover`` where nothing is left to be done, or it is a later operation's by now."""
    was = folder.stored()
    if not folder.is_open():
        raise Problem("nothing-to-recover", f"Operation {folder.name} has ended: {was.status}", exit=Exit.DONE)
    if later := successor(state, folder):
        raise Problem(
            "nothing-to-recover",
            f"{was.guest} has been taken over by a later operation, {later.operation}: {later.status}",
            f"Look with: vferry operation show {later.operation}",
        )


def successor(state: State, folder: OperationFolder) -> OperationState | None:
    """A later operation that has moved the same guest, or may have: what this one left is not its to repair."""
    return _successor(folder.stored(), [each.stored() for each in every(state)])


def close_all_on(state: State, hosts: Container[str]) -> None:
    """Ends the operations that wait for these hosts, which are gone."""
    for folder in every(state):
        was = folder.state()
        if _is_open(was) and was.source in hosts and was.destination in hosts:
            folder.write_state(msgspec.structs.replace(was, status=Status.FAILED, exit=int(Exit.UNDONE)))


def _successor(this: OperationState, states: Iterable[OperationState]) -> OperationState | None:
    for other in states:
        later = other.guest == this.guest and other.started > this.started
        if later and other.status not in (Status.UNDONE, Status.ABORTED, Status.REFUSED):
            return other
    return None


def _is_open(state: OperationState) -> bool:
    return state.status == INTERRUPTED or state.exit == Exit.OPERATOR


def _root(state: State) -> Path:
    state.operations.mkdir(parents=True, exist_ok=True, mode=0o700)
    return state.operations
