"""Which operations are there to be taken over."""

import fcntl
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from fakes.samples import Case, make_fleet, make_plan
from vferry.controller import operations
from vferry.controller.migrate import Request, begun
from vferry.controller.operations import RUNNING, OperationFolder, OperationState
from vferry.controller.state import State
from vferry.model.problem import Exit, Problem
from vferry.model.report import Phase, Status
from vferry.plan.plan import GuestSide, NetworkMode


@pytest.fixture
def state(tmp_path: Path) -> State:
    (tmp_path / "operations").mkdir()
    return State(root=tmp_path)


def add(state: State, at: int, status: str, code: Exit | None = None, guest: str = "guest1") -> OperationFolder:
    """An operation that began `at` that second."""
    folder = OperationFolder(state.root / "operations" / f"op-{at}")
    folder.root.mkdir()
    folder.write_state(
        OperationState(
            operation=folder.name,
            guest=guest,
            source="host1",
            destination="host2",
            status=status,
            phase=Phase.DONE,
            started=f"2026-01-01T00:00:{at:02d}.000Z",
            exit=None if code is None else int(code),
        )
    )
    return folder


def waiting(state: State) -> list[str]:
    return [folder.name for folder in operations.to_recover(state)]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (RUNNING, None, ["op-1"]),
        (Status.FAILED, Exit.OPERATOR, ["op-1"]),
        (Status.COMPLETED, Exit.OPERATOR, ["op-1"]),
        (Status.COMPLETED, Exit.DONE, []),
        (Status.UNDONE, Exit.UNDONE, []),
    ],
)
def test_what_was_left_or_needs_the_operator_is_taken_over(
    state: State, status: str, code: Exit | None, expected: list[str]
) -> None:
    add(state, 1, status, code)
    assert waiting(state) == expected


@pytest.mark.parametrize(
    ("guest", "status", "code", "expected"),
    [
        ("guest1", Status.COMPLETED, Exit.DONE, []),
        ("guest1", Status.FAILED, Exit.OPERATOR, ["op-2"]),
        # It left the guest where it was.
        ("guest1", Status.UNDONE, Exit.UNDONE, ["op-1"]),
        ("guest2", Status.COMPLETED, Exit.DONE, ["op-1"]),
    ],
)
def test_a_guest_that_was_moved_since_is_not_repaired_by_an_old_plan(
    state: State, guest: str, status: Status, code: Exit, expected: list[str]
) -> None:
    add(state, 1, Status.COMPLETED, Exit.OPERATOR)
    add(state, 2, status, code, guest)
    assert waiting(state) == expected


def test_what_waits_for_hosts_that_are_gone_is_closed(state: State) -> None:
    add(state, 1, RUNNING)
    add(state, 2, Status.FAILED, Exit.OPERATOR, "guest2")
    operations.close_all_on(state, ["host1", "host3"])
    assert waiting(state) == ["op-1", "op-2"]
    operations.close_all_on(state, ["host1", "host2"])
    assert waiting(state) == []


def test_an_operation_that_is_looked_at_can_be_driven(state: State) -> None:
    folder = add(state, 1, RUNNING)
    with (folder.root / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        Timer(0.1, fcntl.flock, (lock, fcntl.LOCK_UN)).start()
        with folder.driven():
            assert folder.state().status == RUNNING


def test_an_operation_is_driven_by_one_process(state: State) -> None:
    folder = add(state, 1, RUNNING)
    with folder.driven(), pytest.raises(Problem, match="another process"), folder.driven():
        pass


def test_one_that_ends_while_it_is_looked_at_is_not_taken_for_interrupted(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = add(state, 1, RUNNING)

    def ends(_lock: Path) -> bool:
        folder.write_state(msgspec.structs.replace(folder.stored(), status=Status.COMPLETED))
        return False

    monkeypatch.setattr(operations, "is_held", ends)
    assert folder.state().status == Status.COMPLETED


def test_a_new_operation_is_never_seen_undriven(state: State) -> None:
    case = Case(NetworkMode.SWITCH, GuestSide.ADDRESSES)
    prepared: Any = SimpleNamespace(
        request=Request(guest="guest1", destination="host2", probe_tcp=7),
        survey=SimpleNamespace(probe_address=None, probe_from=None),
        began=0.0,
        started="2026-01-01T00:00:00.000Z",
    )
    with begun(state, prepared, make_plan(make_fleet(case), case)) as folder:
        assert [each.state().status for each in operations.every(state)] == [RUNNING]
    assert folder.state().status == operations.INTERRUPTED
    assert folder.stored().probe_tcp == 7, "for whoever takes it over"
