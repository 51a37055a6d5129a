"""Whose lab it is: one lab per machine, whatever the number of clones."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from vferry.lab import places
from vferry.lab.layers import Layers
from vferry.model.problem import Exit, Problem


class Owner(msgspec.Struct, frozen=True):
    """The clone whose lab is up: its folder, since when (local time, ISO 8601), and the layers its hosts booted."""

    clone: str
    since: str
    layers: Layers


def read(text: str) -> Owner | None:
    """The owner that the lock's content names; None where there is none or it was cut off in a crash."""
    try:
        return msgspec.json.decode(text, type=Owner)
    except msgspec.DecodeError:
        return None


def current() -> Owner | None:
    """The owner of the machine's lab."""
    try:
        return read(places.LOCK.read_text())
    except OSError:
        return None


def ground() -> Path:
    """The base layer whose kernel the guests of the machine's lab have. Problem ``lab-down``."""
    who = current()
    if who is None or not Path(who.layers.ground).exists():
        raise Problem("lab-down", "The lab is down", "Start it with: vferry lab up")
    return Path(who.layers.ground)


def write(owner: Owner) -> None:
    places.LOCK.write_bytes(msgspec.json.encode(owner))


@contextmanager
def changing(path: Path = places.LOCK) -> Iterator[None]:
    """Held while a lab goes up or down; a second one that tries is told so at once."""
    with _opened(path) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = current()
            raise Problem(
                "lab-busy",
                f"Another command is changing the lab{f' of {who.clone}' if who else ''} right now",
                "Wait until it is done",
                exit=Exit.REFUSED,
            ) from None
        yield
        if not path.read_text():  # nobody's: a lab that is down leaves no file either
            path.unlink()


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """Opens the lock's file; anew where it was removed between opening and looking."""
    while True:
        with path.open("a") as handle:
            if path.exists() and path.stat().st_ino == os.fstat(handle.fileno()).st_ino:
                yield handle
                return


def refuse_another(clone: Path, *, alive: bool) -> None:
    """Raises `Problem` where another clone's lab is up."""
    who = current()
    if who and alive and who.clone != str(clone):
        raise Problem(
            "lab-of-another",
            f"The lab of {who.clone} is up, since {who.since}; a machine has room for one",
            f"Take it down with: cd {who.clone} && vferry lab down",
            exit=Exit.REFUSED,
            clone=who.clone,
            since=who.since,
        )
