"""The progress of a migration while it runs: a picture that renews itself, or plain lines."""

import math
import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from vferry.model.report import Phase, Status
from vferry.report import words
from vferry.report.copy_figures import CopyFigures, Fitting

# Without a terminal, a line for each so many percent is enough, and for each doubling of the passes: a copy that stalls
# makes more and more of them.
PLAIN_STEP = 10


class Progress:
    """Shows one migration; a context manager. Its methods may be called as often as news comes."""

    def __init__(self, guest: str, source: str, destination: str, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._title = words.clean(f"{guest} {source} → {destination}")
        self._began: dict[Phase, float] = {}
        self._ended: dict[Phase, float] = {}
        self._current: Phase | None = None
        self._percent: float | None = None
        self._copy = CopyFigures()
        self._lost: int | None = None
        self._gap_ms: float | None = None
        self._status: Status | None = None
        # One for all renderings, since it counts the time since its first.
        self._spinner = Spinner("dots", style="cyan")
        self._told: tuple[object, ...] = ()
        self._live = (
            Live(get_renderable=self.render, console=self._console, refresh_per_second=4, transient=True)
            if self._console.is_terminal
            else None
        )

    @property
    def percent(self) -> int | None:
        """How much is copied: never less than before, and 100 only when the migration is completed."""
        if self._percent is None:
            return None
        return 100 if self._status is Status.COMPLETED else min(99, int(self._percent))

    def phase(self, phase: Phase, began: float | None = None) -> None:
        """A phase has begun, now or by `time.monotonic()` before, and with it the one before has ended."""
        if phase is self._current:
            return
        self._end_phase()
        self._current = phase
        now = time.monotonic()
        # That clock begins anew with the machine.
        self._began[phase] = now if began is None else min(began, now)
        self._say(f"{phase}")

    def copy(self, news: CopyFigures) -> None:
        """News of the copy."""
        self._copy = news
        if news.percent is not None and not math.isnan(news.percent):
            self._percent = max(self._percent or 0.0, min(100.0, news.percent))
        if self.percent is not None:
            parts = (f"copy {self.percent} %", *news.speed(), *news.course())
            self._say(", ".join(parts), self.percent // PLAIN_STEP, news.rounds.bit_length())

    def probe(self, lost: int | None, gap_ms: float | None) -> None:
        """News of the prober: probes lost so far, and for how many ms there has been no answer."""
        changed = lost != self._lost
        self._lost, self._gap_ms = lost, gap_ms
        if changed:
            self._say(f"network: {self._network()}")

    def finish(self, status: Status) -> None:
        """The migration has ended."""
        self._end_phase()
        self._current, self._status = None, status
        self._say(words.STATUS[status])

    def render(self) -> RenderableType:
        """What the terminal shows now."""
        table = Table.grid(padding=(0, 2))
        for phase in self._began:
            now = phase is self._current
            mark: RenderableType = self._spinner if now else Text("✓", style="green")
            details = self._copy_line() if phase is Phase.COPY and now else Text("")
            table.add_row(mark, Text(phase, style="bold" if now else ""), Text(self._elapsed(phase)), details)
        return Group(Text(self._title, style="bold"), table, Text(f"network: {self._network()}"))

    def _copy_line(self) -> RenderableType:
        if self.percent is None:
            return Text("")
        line = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=100, completed=self.percent, width=24)
        line.add_row(bar, Text(f"{self.percent} %", no_wrap=True), Fitting(self._copy.speed()))
        return Group(line, Fitting(self._copy.course()))

    def _network(self) -> str:
        if self._lost is None:
            return words.NOT_MEASURED
        silent = self._gap_ms is not None and self._gap_ms >= 100
        return f"{words.count(self._lost)} lost" + (
            f", no answer for {words.milliseconds(self._gap_ms)}" if silent else ""
        )

    def _elapsed(self, phase: Phase) -> str:
        return words.seconds(self._ended.get(phase, time.monotonic()) - self._began[phase])

    def _end_phase(self) -> None:
        if self._current is not None:
            self._ended[self._current] = time.monotonic()

    def _say(self, line: str, *key: object) -> None:
        """Without a terminal: one line for each change; `key` tells what counts as one."""
        told = key or (line,)
        if self._live is None and told != self._told:
            self._told = told
            self._console.print(Text(line), soft_wrap=True)

    def __enter__(self) -> Self:
        if self._live is None:
            self._say(self._title)
        else:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
