"""A migration that another process drives, as it is followed and shown."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from fakes.samples import Case, make_fleet, make_plan
from vferry.cli import following
from vferry.cli import operation as cli
from vferry.controller import operations
from vferry.controller.drive import first_state
from vferry.controller.news import News, tell
from vferry.controller.operations import OperationFolder
from vferry.controller.state import State
from vferry.host.api import Migration
from vferry.model.problem import Exit, Problem
from vferry.model.report import Phase, Report, Stall, Status
from vferry.plan.plan import GuestSide, NetworkMode

CASE = Case(NetworkMode.VIRTIO, GuestSide.ADDRESSES)
COPY = Migration(state="active", total_bytes=1000, remaining_bytes=700, rounds=1, wire_rate=4096.0)
LATER = replace(COPY, remaining_bytes=380, rounds=2, dirty_rate=2.0, ratio=2.4)

STRETCHED = Stall(action="pause", round=4, after_s=6.2, pause_ms=450)
GIVEN_UP = Stall(action="abort", round=9, after_s=20.0)


class Driven:
    """A migration, and what becomes of it at each look."""

    def __init__(self, root: Path) -> None:
        plan = make_plan(make_fleet(CASE), CASE)
        self.folder: OperationFolder = operations.create(State(root=root), plan)
        self.state = first_state(plan, None, None, 0.0)
        self.next: Iterator[Callable[[], None]] = iter(())
        self.at(Phase.CHECK)

    def at(self, phase: Phase) -> None:
        self.state = replace(self.state, phase=phase)
        self.folder.write_state(self.state)

    def end(self) -> None:
        names = ("operation", "guest", "source", "destination", "started")
        shared = {name: getattr(self.state, name) for name in names}
        self.folder.write_report(Report(**shared, status=Status.COMPLETED, total_s=9.0))
        self.folder.write_state(replace(self.state, status=Status.COMPLETED.value, phase=Phase.DONE, exit=0))

    def leave(self) -> None:
        (self.folder.root / "lock").unlink()

    def sleep(self, _seconds: float) -> None:
        next(self.next)()


@pytest.fixture
def driven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driven]:
    monkeypatch.setenv("VFERRY_STATE", str(tmp_path))
    driven = Driven(tmp_path)
    monkeypatch.setattr(following, "time", SimpleNamespace(sleep=driven.sleep))
    with driven.folder.driven():
        yield driven


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.command, [*words])


def test_it_is_followed_as_it_is_seen_where_it_was_started(driven: Driven) -> None:
    tell(driven.folder, News(migration=COPY))
    driven.next = iter(
        (
            lambda: driven.at(Phase.COPY),
            lambda: tell(driven.folder, News(migration=LATER, stalls=(STRETCHED,))),
            lambda: tell(driven.folder, News(migration=LATER, stalls=(STRETCHED, GIVEN_UP), lost=0, gap_ms=1.0)),
            lambda: driven.at(Phase.SWITCHOVER),
            lambda: tell(driven.folder, News(migration=LATER, lost=58, gap_ms=120.0)),
            driven.end,
        )
    )
    followed = run("follow", driven.folder.name)
    assert followed.exit_code == Exit.DONE
    assert followed.stderr.splitlines() == [
        "web host1 → host2",
        "check",
        "copy",
        "copy 30 %, 4.0 KiB/s, pass 1, 700 B left",
        "copy 62 %, 4.0 KiB/s, pass 2, 380 B left, guest writes 8.0 KiB/s, compressed 2.4 : 1",
        "copy stalled: pause of up to 450 ms allowed in pass 4, after 6.2 s",
        "network: 0 lost",
        "copy stalled: aborted in pass 9, after 20.0 s",
        "switchover",
        "network: 58 lost, no answer for 120 ms",
        "completed",
    ]
    assert "web host1 → host2: completed" in followed.stdout


def test_one_that_is_left_meanwhile_is_told_as_such(driven: Driven) -> None:
    driven.next = iter((driven.leave,))
    followed = run("follow", driven.folder.name)
    assert isinstance(followed.exception, Problem)
    assert followed.exception.code == "operation-interrupted"


@pytest.mark.parametrize(
    ("phase", "copy", "said"),
    [
        (Phase.COPY, LATER, ": pass 2, 380 B left, guest writes 8.0 KiB/s, compressed 2.4 : 1, 4.0 KiB/s"),
        (Phase.COPY, Migration(state="active"), ""),
        (Phase.COPY, None, ""),
        (Phase.SWITCHOVER, LATER, ""),
    ],
)
def test_how_far_its_copy_is_is_shown(driven: Driven, phase: Phase, copy: Migration | None, said: str) -> None:
    driven.at(phase)
    tell(driven.folder, News(migration=copy))
    shown = run("show", driven.folder.name).output.rstrip("\n")
    assert shown == f"web host1 → host2: running, in phase {phase} (since {driven.state.started}){said}"
