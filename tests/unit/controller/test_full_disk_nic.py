"""A disk that is full where the move of a NIC is kept: before it, that is refused; in it, it goes on."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vferry.controller.journal
from fakes import faults
from fakes.contract import Snapshot
from fakes.nic_controller import Controller
from fakes.nic_moves import BETWEEN, CASES, NicCase, make_fleet, shut_down
from fakes.small_disk import SmallDisk, needs_a_small_disk, on_a_small_disk, small_disk
from vferry.controller import nic_moves
from vferry.controller.nic_moves import Way
from vferry.controller.room import NoRoom, room
from vferry.host.api import ClaimResources
from vferry.model.problem import Exit

pytestmark = needs_a_small_disk

WHILE_RUNNING = CASES[1]
"""From a VF to the relay."""
WHILE_OFF = NicCase(*BETWEEN[0])
EITHER = pytest.mark.parametrize("case", [WHILE_RUNNING, WHILE_OFF], ids=["running", "off"])
Make = Callable[[NicCase], Controller]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallDisk]:
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    with small_disk() as disk:
        yield disk


@pytest.fixture
def make(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A new controller on the disk, which has nothing else then."""

    def made(case: NicCase) -> Controller:
        disk.empty()
        shutil.rmtree(disk.root / "state", ignore_errors=True)
        (disk.root / "state").mkdir()
        controller = Controller(disk.root / "state", make_fleet(case), monkeypatch)
        if case is WHILE_OFF:
            shut_down(controller.fleet)
        return controller

    return made


@EITHER
def test_before_anything_is_asked_it_is_refused_and_nothing_is_left(make: Make, disk: SmallDisk, case: NicCase) -> None:
    controller = make(case)
    before = Snapshot.of(controller.fleet)
    disk.fill()
    with pytest.raises(NoRoom, match="No space left") as caught:
        controller.move(case.to)
    assert caught.value.exit is Exit.REFUSED
    assert (before.differences(controller.fleet), controller.claims(), controller.shown()) == ([], 0, [])


@EITHER
def test_one_that_has_a_claim_and_no_room_to_begin_with_ends(make: Make, disk: SmallDisk, case: NicCase) -> None:
    controller = make(case)
    before = Snapshot.of(controller.fleet)
    controller.fleet.faults.append(faults.doing(faults.at_operation(ClaimResources), disk.fill, after=True))
    with pytest.raises(NoRoom):
        controller.move(case.to)
    assert (controller.stands(), controller.claims(), controller.kept()) == ([("refused", 3)], 0, [])
    assert before.differences(controller.fleet) == []
    disk.empty()
    controller.move(case.to)
    assert controller.stands()[-1] == ("completed", 0)


@EITHER
def test_from_any_call_on_it_goes_on_and_its_end_is_written(make: Make, disk: SmallDisk, case: NicCase) -> None:
    whole = make(case)
    whole.move(case.to)
    wanted = Snapshot.of(whole.fleet)
    first = next(call.number for call in whole.fleet.calls if isinstance(call.operation, ClaimResources)) + 1
    last = whole.fleet.calls[-1].number
    assert last - first > 5
    for number in range(first, last):
        controller = make(case)
        controller.fleet.faults.append(faults.doing(faults.at(number), disk.fill, after=True))
        try:
            controller.move(case.to)
        except NoRoom:
            assert controller.stands() == [("refused", 3)], number
            continue
        assert (wanted.differences(controller.fleet), controller.stands()) == ([], [("completed", 0)]), number
        (folder,) = (disk.root / "state/operations").iterdir()
        assert sorted(path.name for path in folder.iterdir()) == ["lock", "move.json", "report.json", "state.json"]


def test_without_room_for_its_journal_nothing_is_begun(
    make: Make, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(journal: Path, *_: Any) -> None:
        with room():
            raise OSError(28, "No space left on device", str(journal))

    controller = make(WHILE_RUNNING)
    before = Snapshot.of(controller.fleet)
    monkeypatch.setattr(vferry.controller.journal, "run_journaled", full)
    with pytest.raises(NoRoom, match=r"journal\.sqlite"):
        controller.move()
    assert (before.differences(controller.fleet), controller.claims()) == ([], 0)
    assert controller.stands() == [("refused", 3)]


def test_one_that_was_begun_waits_for_room(make: Make, disk: SmallDisk) -> None:
    controller = make(WHILE_RUNNING)
    controller.fleet.faults.append(faults.crash(lambda call: call.number == 12))
    with pytest.raises(faults.Crash):
        controller.move()
    assert controller.kept() == [Way.THERE]
    disk.fill()
    with pytest.raises(NoRoom):
        controller.recover()
    disk.empty()
    assert [each.status for each in controller.recover()] == ["completed"]


def test_what_is_being_done_is_said_where_others_cannot_be_told(make: Make, disk: SmallDisk) -> None:
    controller = make(WHILE_RUNNING)
    controller.fleet.faults.append(faults.doing(faults.at(12), disk.fill))
    controller.move()
    assert len(controller.told) == 9
    assert nic_moves.find(controller.state, controller.shown()[0].operation) is None


IN_THE_MIDDLE = """
import asyncio
from pathlib import Path
from fakes.small_disk import SmallDisk
from vferry.controller.journal import run_journaled
from vferry.migration.record import Outcome, StepRecord
from vferry.model.problem import Problem
from vferry.model.report import Phase

disk = SmallDisk(Path("/mnt"))

async def body(journal):
    async def step():
        disk.fill()
        end = {"outcome": Outcome.DONE, "start": 0.0, "end": 1.0, "started": "", "detail": "x" * 9999}
        return StepRecord(name="a", host="h", phase=Phase.PREPARE, **end)
    return await journal.once("a", step)

try:
    asyncio.run(run_journaled(disk.root / "journal.sqlite", "op-1", body))
except Problem as problem:
    print(problem.code, int(problem.exit), problem)
"""


def test_with_a_full_journal_it_ends_as_if_killed_and_says_what_to_do() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parents[2]), *sys.path))}
    command = on_a_small_disk([sys.executable, "-c", IN_THE_MIDDLE])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout.split()[:2]) == ("", ["no-space", "5"])
    assert "/mnt/journal.sqlite. Free some, then: vferry operation recover." in done.stdout
