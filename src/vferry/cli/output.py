"""How commands print: tables for people, JSON for programs."""

import sys

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
