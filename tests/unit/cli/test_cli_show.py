"""What is shown of something under way does not end it."""

import os
import sys
from collections.abc import Iterator
from typing import IO

import pytest

from fakes.samples import Case, make_fleet, make_plan
from vferry.cli import output, show
from vferry.migration.record import Outcome, StepRecord
from vferry.model.report import Phase
from vferry.plan.plan import GuestSide, NetworkMode

CASE = Case(NetworkMode.VIRTIO, GuestSide.ADDRESSES)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[IO[str]]:
    """Standard error is a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        yield stream


def test_the_progress_of_a_migration(unread: IO[str]) -> None:
    failed = StepRecord(
        phase=Phase.PREPARE, name="claim", host="h", outcome=Outcome.FAILED, start=0.0, end=1.0, started=""
    )
    with show.Stage(make_plan(make_fleet(CASE), CASE)) as stage:
        for phase in Phase:
            stage.phase(phase)
        stage.ended(failed)
        stage.probed(1, 200.0)
    print("and what comes after it", file=sys.stderr, flush=True)


def test_the_steps_of_what_is_done_to_one_host(unread: IO[str]) -> None:
    with show.Line() as line:
        line.begin("unplug VF 1 of pf0")
        line.tell("half")
        line.begin("define guest1")


def test_what_is_read_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with show.Line() as line:
        line.begin("unplug VF 1 of pf0")
    assert capsys.readouterr().err == "unplug VF 1 of pf0\n"
    console = output.standard_error()
    assert not console.is_terminal
    assert console.encoding
