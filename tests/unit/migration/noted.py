"""What tests of connections that go along have in common: what fails of it, fails nothing else."""

from fakes.contract import moved
from fakes.samples import Drive
from vferry.migration.report import Measured, make_report
from vferry.model.problem import Exit

MEASURED = Measured(began=0.0, started="2026-01-01T00:00:00.000Z", ended=1000.0)


def assert_only_noted(drive: Drive, note: str) -> None:
    """The migration ends as if nothing had been, and its report has one note, with these words."""
    ending = drive.run()
    assert (ending.exit, ending.degraded, ending.notes) == (Exit.DONE, None, ())
    assert moved(drive.fleet, drive.plan) == []
    report = make_report(drive.plan, ending, MEASURED)
    assert report.connections is None
    assert [note in each for each in report.notes] == [True]
