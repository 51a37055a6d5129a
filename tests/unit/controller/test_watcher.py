"""What is kept of a migration's news while it runs."""

from pathlib import Path

from fakes.journal import Witness
from vferry.controller.drive import Watcher
from vferry.controller.operations import OperationFolder, OperationState
from vferry.host.api import Migration
from vferry.model.report import Phase


class Audience(Witness):
    def probed(self, lost: int, gap_ms: float) -> None:
        raise AssertionError("nobody probes")


def test_the_rate_is_that_on_the_wire(tmp_path: Path) -> None:
    state = OperationState(
        operation="op-1", guest="web", source="a", destination="b", status="running", phase=Phase.COPY, started=""
    )
    audience = Audience()
    watcher = Watcher(OperationFolder(tmp_path), state, audience)
    told = [Migration(rate=9e6), Migration(rate=9e6, wire_rate=0.0), Migration(rate=9e6, wire_rate=3e6)]
    for news in told:
        watcher.progress(news)
    assert [rate for _, rate in watcher.rates] == [0.0, 3e6]
    assert audience.samples == told
