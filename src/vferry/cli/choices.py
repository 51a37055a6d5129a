"""Options that name several things, separated by commas; and MACs."""

import re
from collections.abc import Iterable
from pathlib import Path

import click

MAC = r"([0-9a-f]{2}:){5}[0-9a-f]{2}"


def chosen(text: str, known: Iterable[str], option: str) -> list[str]:
    """The names that a text has. Raises click.BadParameter for one that is not known."""
    names = [name.strip() for name in text.split(",")]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}: choose among {', '.join(known)}", param_hint=option)
    return names


def numbers(text: str, option: str) -> list[int]:
    """Numbers, none of them negative. Raises click.BadParameter."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise click.BadParameter(f"{text}: give numbers, separated by commas", param_hint=option)
    return [int(part) for part in parts]


def mac(text: str, option: str) -> str:
    """A MAC, in small letters. Raises click.BadParameter."""
    found = text.strip().lower()
    if not re.fullmatch(MAC, found):
        raise click.BadParameter(f"{found!r} is no MAC", param_hint=option)
    return found


def macs(text: str, option: str) -> tuple[str, ...]:
    """MACs, as `mac`."""
    return tuple(mac(each, option) for each in text.split(","))


def tell_left_out(number: int, results: Path) -> None:
    """Says how many runs in a file of results were not compared, if any."""
    if number:
        click.echo(f"left out: {number} in {results} of other settings, or of another vferry", err=True)
