"""What was measured so far, in a file, so that a bench that was cut goes on where it stopped."""

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

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


class Results:
    """The rows so far, each with its case and the commit that it was measured with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []

    def count(self, case: Case) -> int:
        return sum(row.get("used", 0) == case.used and row | case.key == row for row in self.rows)

    def add(self, case: Case, figures: dict[str, Any]) -> None:
        self.rows.append({**case.key, **figures})
        write_durably(self.path, json.dumps({"rows": self.rows}, indent=1).encode() + b"\n", mode=0o644)


def commit() -> str:
    """The commit of the code that runs, with a plus if it was changed since; empty outside a checkout."""
    argv = ["git", "-C", str(Path(vferry.__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
