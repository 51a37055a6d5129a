"""Room on the disk of a controller's state: made sure of before an operation is begun, and kept for its end."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vferry.model.problem import Problem, no_space

RESERVE = 1 << 20
"""Bytes of disk that an operation keeps, so that how it ended can be written when the disk is full."""
_FILE = "reserve"


class NoRoom(Problem):
    """Nothing is begun, since there is no room to write it down."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code, problem.message, problem.remedy, exit=problem.exit)


@contextmanager
def room() -> Iterator[None]:
    """Raises `NoRoom` where there is none for what is written."""
    try:
        yield
    except OSError as error:
        problem = no_space(error)
        if problem is None:
            raise
        raise NoRoom(problem) from error


@contextmanager
def forgotten_without_room(folder: Path) -> Iterator[None]:
    """Leaves nothing of an operation that is not begun as there is no room."""
    try:
        yield
    except NoRoom:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def reserve(folder: Path) -> None:
    """Keeps room for an operation's end. Raises `NoRoom`."""
    path = folder / _FILE
    with room(), path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, RESERVE)
        except OSError as error:
            error.filename = str(path)
            raise


def free_reserve(folder: Path) -> None:
    """Gives the room back, for what is written next."""
    (folder / _FILE).unlink(missing_ok=True)
