"""A disk that is full where the controller writes: before a migration it is refused, in one it ends nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import faults
from fakes.contract import Snapshot, moved
from fakes.driven_on_a_small_disk import BEGIN, END, JOURNAL
from fakes.journal import Witness
from fakes.matrix import clean_calls, plan_of
from fakes.recovery import Kept
from fakes.samples import DESTINATION, GUEST, SOURCE, Case, Drive, make_fleet
from fakes.small_disk import SmallDisk, needs_a_small_disk, on_a_small_disk, small_disk
from vferry.cli import main, show
from vferry.controller.drive import Watcher, _written
from vferry.controller.operations import RUNNING, OperationFolder, OperationState
from vferry.controller.room import reserve
from vferry.model.problem import Exit
from vferry.model.report import Phase, Report, Status
from vferry.plan.plan import GuestSide, NetworkMode

pytestmark = needs_a_small_disk

STATE = OperationState(
    operation="op-1", guest="web", source="a", destination="b", status=RUNNING, phase=Phase.CHECK, started=""
)
REPORT = Report(
    operation="op-1",
    guest="web",
    source="a",
    destination="b",
    status=Status.COMPLETED,
    started="",
    total_s=1,
)
TESTS = Path(__file__).parents[2]


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    with small_disk() as disk:
        yield disk


def driven(when: str) -> Any:
    command = [sys.executable, "-m", "fakes.driven_on_a_small_disk", when]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(TESTS), *sys.path))}
    done = subprocess.run(on_a_small_disk(command), env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), "nobody is shown a traceback"
    return json.loads(done.stdout)


@pytest.mark.parametrize(("when", "place"), [(BEGIN, "/mnt/operations/op-1"), (JOURNAL, "/mnt/journal.sqlite")])
def test_before_anything_is_changed_it_is_refused_and_nothing_is_left(when: str, place: str) -> None:
    found = driven(when)
    assert f"No space left on the file system of {place}" in found["refused"]
    assert "Free some" in found["refused"]
    assert (found["runs_on"], found["asked"], found["operations"]) == ([SOURCE], 0, [])


@pytest.mark.parametrize("when", [Phase.PREPARE, END])
def test_a_migration_goes_on_without_its_journal_and_its_end_is_written(when: str) -> None:
    found = driven(when)
    assert found["report"] == {"status": Status.COMPLETED, "notes": []}
    assert found["runs_on"] == [DESTINATION]
    assert found["operations"] == [{"status": Status.COMPLETED, "journaled": False}]
    assert "reserve" not in found["files"]


class Audience(Witness):
    def probed(self, lost: int, gap_ms: float) -> None:
        """Of no interest."""


def test_a_phase_that_cannot_be_told_to_others_is_gone_into(disk: SmallDisk) -> None:
    folder, audience = OperationFolder(disk.root), Audience()
    folder.write_state(STATE)
    watcher = Watcher(folder, STATE, audience)
    disk.fill()
    watcher.phase(Phase.COPY)
    assert (folder.stored().phase, audience.phases) == (Phase.CHECK, [Phase.COPY])
    disk.empty()
    watcher.phase(Phase.TO_VF)
    assert folder.stored().phase == Phase.TO_VF


def test_the_end_is_written_with_the_room_that_was_kept(disk: SmallDisk) -> None:
    folder = OperationFolder(disk.root)
    reserve(disk.root)
    disk.fill()
    assert _written(folder, REPORT, STATE) == REPORT == folder.report()


def test_an_end_that_cannot_be_written_is_told_with_what_to_do(disk: SmallDisk) -> None:
    disk.fill()
    (note,) = _written(OperationFolder(disk.root), REPORT, STATE).notes
    assert "How it ended is not written down: No space left on" in note
    assert "Free some, then: vferry operation recover" in note


def test_that_the_journal_is_left_is_noted_without_room(disk: SmallDisk) -> None:
    folder = OperationFolder(disk.root)
    disk.fill()
    assert folder.is_journaled()
    folder.leave_journal()
    assert not folder.is_journaled()


def test_a_command_says_what_to_do(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = disk.root / "operations/op-1"
    folder.mkdir(parents=True)
    OperationFolder(folder).write_state(STATE)
    disk.fill()
    monkeypatch.setenv("VFERRY_STATE", str(disk.root))
    monkeypatch.setattr(sys, "argv", ["vferry", "operation", "set", "op-1", "--bandwidth", "1M"])
    with OperationFolder(folder).driven(), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == Exit.OPERATOR
    assert capsys.readouterr().err.startswith("vferry: No space left on the file system of ")


def test_a_report_for_which_there_is_no_room_names_its_file(disk: SmallDisk) -> None:
    disk.fill()
    with pytest.raises(OSError, match="No space left") as caught:
        show.write(REPORT, (disk.root / "report.json", None, None))
    assert caught.value.filename == str(disk.root / "report.json")


@pytest.mark.parametrize("mode", [NetworkMode.SWITCH, NetworkMode.VIRTIO])
def test_what_a_full_journal_has_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: NetworkMode
) -> None:
    """It has the first steps only: the hosts tell where the guest is, and that is put in order."""
    monkeypatch.setattr("os.fsync", lambda _file: None)
    case = Case(mode, GuestSide.ADDRESSES)
    ends = set()
    for call in clean_calls(case)[:-1]:
        left = Kept(Drive(make_fleet(case), plan_of(case)), tmp_path / str(call.number), monkeypatch)
        before = Snapshot.of(left.fleet)
        left.stands(RUNNING, None)
        left.folder.leave_journal()
        left.fleet.faults.append(faults.crash(faults.at(call.number), after=True))
        with pytest.raises(faults.Crash):
            left.drive.run()
        left.drive.journal.kept = dict(list(left.drive.journal.kept.items())[:1])
        ending = left.recover()
        assert (ending.exit, ending.notes) in {(Exit.DONE, ()), (Exit.UNDONE, ())}, call
        wrong = moved(left.fleet, left.drive.plan) if ending.at_destination else before.differences(left.fleet)
        assert wrong == [], call
        ends.add(tuple(left.fleet.running(GUEST)))
    assert ends == {(SOURCE,), (DESTINATION,)}
