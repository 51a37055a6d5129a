"""What was measured so far, in a file, so that a bench that was cut goes on where it stopped."""

import json
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import vferry
from vferry.host.durable import write_durably


class Case(NamedTuple):
    """One of the things compared. Link in Mbit/s, 0 for one that is not shaped; rate in pages/s; memory in MiB.

    `used` is how much of the memory has content, in MiB; 0 is the usual share.
    """

    mode: str
    link: int
    rate: int
    memory: int
    tls: bool
    used: int = 0

    @property
    def key(self) -> dict[str, Any]:
        """What its rows say of it: of `used` only where it is not the usual share."""
        return {name: value for name, value in self._asdict().items() if name != "used" or value}

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        """That of a row."""
        return cls(**{name: row.get(name, 0) for name in cls._fields})


class Compared(Protocol):
    """What is compared with others: what rows say of it."""

    @property
    def key(self) -> dict[str, Any]: ...


CaseT = TypeVar("CaseT", bound=Compared)


class Results(Generic[CaseT]):
    """The rows so far, each with its case and in what environment it was measured.

    Only those of the same environment count: others stay in the file, and are not compared.
    """

    def __init__(self, path: Path, case: Callable[[dict[str, Any]], CaseT]) -> None:
        """`case` says which a row is of."""
        self.path = path
        self._case = case
        self.rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []

    def count(self, case: CaseT, environment: dict[str, Any]) -> int:
        return sum(self._case(row) == case and row | environment == row for row in self.rows)

    def of(self, environment: Callable[[CaseT], dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows that were measured in the environment that their cases would be measured in now."""
        return [row for row in self.rows if row | environment(self._case(row)) == row]

    def add(self, case: CaseT, figures: dict[str, Any]) -> None:
        self.rows.append({**case.key, **figures})
        write_durably(self.path, json.dumps({"rows": self.rows}, indent=1).encode() + b"\n", mode=0o644)


def code() -> str:
    """The vferry that runs: its commit, or its version outside a checkout."""
    return commit() or version("vferry")


def commit() -> str:
    """The commit of the code that runs, with a plus if it was changed since; empty outside a checkout."""
    argv = ["git", "-C", str(Path(vferry.__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
