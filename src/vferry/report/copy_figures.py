"""A copy that runs, in words; and as many of them as a line has room for."""

from typing import NamedTuple

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from vferry.report import words


class CopyFigures(NamedTuple):
    """How a copy stands; what is None is not known, and not shown."""

    percent: float | None = None
    rate: float | None = None
    """Bytes per second on the wire."""
    to_go_s: float | None = None
    """An estimate."""
    rounds: int = 0
    """Passes over the memory, with the one that it is at."""
    remaining_bytes: int | None = None
    dirty_rate: float | None = None
    """Bytes per second that the guest writes."""
    expected_pause_ms: float | None = None
    ratio: float | None = None
    """Bytes of QEMU's stream for each on the wire."""

    def speed(self) -> list[str]:
        """How fast it is, and how long it takes."""
        rate = None if self.rate is None else f"{words.size(self.rate)}/s"
        to_go = None if self.to_go_s is None else f"about {words.seconds(self.to_go_s)} to go"
        return _known(rate, to_go)

    def course(self) -> list[str]:
        """Whether it comes to its end, and to which; what matters most comes first."""
        return _known(
            f"pass {self.rounds}" if self.rounds else None,
            None if self.remaining_bytes is None else f"{words.size(self.remaining_bytes)} left",
            None if self.dirty_rate is None else f"guest writes {words.size(self.dirty_rate)}/s",
            None if self.expected_pause_ms is None else f"expected pause {words.milliseconds(self.expected_pause_ms)}",
            None if self.ratio is None else f"compressed {self.ratio:.1f} : 1",
        )


class Fitting:
    """Parts of a line of the terminal. The last ones go where it is too narrow: half a figure would be a wrong one."""

    def __init__(self, parts: list[str]) -> None:
        self._parts = parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = self._parts[:]
        while len(kept) > 1 and len(", ".join(kept)) > options.max_width:
            kept.pop()
        yield Text(", ".join(kept))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(len(self._parts[0]) if self._parts else 0, len(", ".join(self._parts)))


def _known(*parts: str | None) -> list[str]:
    return [part for part in parts if part is not None]
