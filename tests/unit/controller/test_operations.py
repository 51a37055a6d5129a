"""Which operations are there to be taken over."""

from pathlib import Path

import pytest

from vferry.controller import operations
from vferry.controller.operations import RUNNING, OperationFolder, OperationState
from vferry.controller.state import State
from vferry.model.problem import Exit
from vferry.model.report import Phase, Status


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
