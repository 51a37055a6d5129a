"""What is shown of something under way does not end it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import pytest

from fakes.samples import Case, make_fleet, make_plan
from vferry.cli import output, show
from vferry.host.api import Migration
from vferry.migration.record import Outcome, StepRecord
from vferry.model.report import Phase
from vferry.plan.plan import GuestSide, NetworkMode

CASE = Case(NetworkMode.VIRTIO, GuestSide.ADDRESSES)
FAILED = StepRecord(phase=Phase.PREPARE, name="claim", host="h", outcome=Outcome.FAILED, start=0.0, end=1.0, started="")


@contextmanager
def unread() -> Iterator[None]:
    """Standard error is a pipe whose reader has gone. Not a fixture: pytest has its own standard error in a test."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as stream, redirect_stderr(stream):
        yield


def test_the_progress_of_a_migration() -> None:
    with unread():
        with show.Stage(make_plan(make_fleet(CASE), CASE)) as stage:
            for phase in Phase:
                stage.phase(phase)
            stage.ended(FAILED)
            stage.probed(1, 200.0)
        print("and what comes after it", file=sys.stderr, flush=True)


def test_what_has_failed_is_the_first_thing_that_nobody_reads() -> None:
    with unread():
        stage = show.Stage(make_plan(make_fleet(CASE), CASE))
        stage.ended(FAILED)


def test_the_steps_of_what_is_done_to_one_host() -> None:
    with unread(), show.Line() as line:
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


def test_how_long_it_takes_is_not_by_the_bytes_that_qemu_sends(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 10.0])
    stage = show.Stage(make_plan(make_fleet(CASE), CASE), clock=lambda: next(times))
    for left in (1000, 600):
        stage.progress(Migration(state="active", total_bytes=1000, remaining_bytes=left, rate=0.5, rounds=1))
    assert "copy 40 %, about 15.0 s to go, pass 1, 600 B left\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("migration", "said"),
    [
        (Migration(state="active"), ""),
        (Migration(state="active", total_bytes=1000, remaining_bytes=380), "copy 62 %, 380 B left"),
        (
            Migration(
                state="active",
                total_bytes=1000,
                remaining_bytes=380,
                wire_rate=1e8,
                ratio=2.4,
                dirty_rate=5000.0,
                rounds=2,
                expected_pause_ms=40.0,
            ),
            (
                "copy 62 %, 95.4 MiB/s, pass 2, 380 B left, guest writes 19.5 MiB/s, expected pause 40.0 ms"
                ", compressed 2.4 : 1"
            ),
        ),
    ],
)
def test_of_a_copy_is_shown_what_is_known(migration: Migration, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    show.Stage(make_plan(make_fleet(CASE), CASE)).progress(migration)
    assert capsys.readouterr().err.strip() == said
