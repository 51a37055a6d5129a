"""How commands print: tables for people, JSON for programs."""

import contextlib
import os
import sys
from typing import IO, Any, cast

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table with these heads."""
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def tables(*made: Table) -> None:
    """Prints tables. Into a pipe nothing is wrapped: whoever reads it wants one line a row."""
    console = Console(width=None if sys.stdout.isatty() else 400, highlight=False)
    for each in made:
        console.print(each)


def json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def standard_error() -> Console:
    """For what is shown of something under way. Whoever reads it may go: that ends nothing."""
    return Console(file=cast("IO[str]", _Lasting(sys.stderr)), highlight=False)


class _Lasting:
    """A stream that cannot fail: where nobody takes what is written, the rest of the process writes it to nowhere."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._mute()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._mute()

    def _mute(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with contextlib.suppress(OSError):
            os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
