"""What is kept of a migration's news while it runs."""

import time
from pathlib import Path

from fakes.journal import Witness
from vferry.controller.drive import Watcher
from vferry.controller.news import News, heard, tell
from vferry.controller.operations import OperationFolder, OperationState
from vferry.host.api import Migration
from vferry.model.report import Phase, Stall

STATE = OperationState(
    operation="op-1", guest="web", source="a", destination="b", status="running", phase=Phase.CHECK, started=""
)


class Audience(Witness):
    def __init__(self) -> None:
        super().__init__()
        self.probes: list[tuple[int, float]] = []

    def probed(self, lost: int, gap_ms: float) -> None:
        self.probes.append((lost, gap_ms))


def test_the_rate_is_that_on_the_wire(tmp_path: Path) -> None:
    audience = Audience()
    watcher = Watcher(OperationFolder(tmp_path), STATE, audience)
    told = [Migration(rate=9e6), Migration(rate=9e6, wire_rate=0.0), Migration(rate=9e6, wire_rate=3e6)]
    for news in told:
        watcher.progress(news)
    assert [rate for _, rate in watcher.rates] == [0.0, 3e6]
    assert audience.samples == told


def test_other_processes_see_the_last_of_it(tmp_path: Path) -> None:
    folder, copy = OperationFolder(tmp_path), Migration(total_bytes=9, remaining_bytes=4)
    assert heard(folder) == News(), "nobody has told anything yet"
    audience = Audience()
    watcher = Watcher(folder, STATE, audience)
    watcher.phase(Phase.COPY)
    watcher.progress(copy)
    watcher.probed(3, 120.0)
    assert heard(folder) == News(migration=copy, lost=3, gap_ms=120.0)
    assert (audience.samples, audience.probes) == ([copy], [(3, 120.0)])
    began = folder.stored().phase_began
    assert began is not None
    assert began <= time.monotonic()

    Watcher(folder, STATE, Audience())
    assert heard(folder) == News(), "who takes it over has seen nothing yet"


def test_what_was_done_as_the_copy_stalled_is_kept_whoever_drives_it(tmp_path: Path) -> None:
    folder, audience = OperationFolder(tmp_path), Audience()
    stalls = [Stall(action="pause", round=4, after_s=6.0, pause_ms=450), Stall(action="abort", round=9, after_s=20.0)]
    Watcher(folder, STATE, audience).stalled(stalls[0])
    later = Watcher(folder, STATE, audience)
    assert later.stalls == heard(folder).stalls == (stalls[0],)
    later.stalled(stalls[1])
    assert later.stalls == heard(folder).stalls == tuple(stalls)
    assert audience.stalls == stalls, "each is told once"


def test_news_that_cannot_be_told_keep_nothing_from_going_on(tmp_path: Path) -> None:
    folder = OperationFolder(tmp_path / "gone")
    tell(folder, News(lost=1))
    assert heard(folder) == News()
