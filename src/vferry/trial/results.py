"""What was measured so far, in a file, so that a bench that was cut goes on where it stopped."""

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import vferry
from vferry.host.durable import write_durably


class Case(NamedTuple):
    """One of the things compared. Link in Mbit/s, 0 for one that is not shaped; rate in pages/s; memory in MiB."""

    mode: str
    link: int
    rate: int
    memory: int
    tls: bool


class Results:
    """The rows so far, each with its case and the commit that it was measured with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []

    def count(self, case: Case) -> int:
        return sum(row | case._asdict() == row for row in self.rows)

    def add(self, case: Case, figures: dict[str, Any]) -> None:
        self.rows.append({**case._asdict(), **figures})
        write_durably(self.path, json.dumps({"rows": self.rows}, indent=1).encode() + b"\n", mode=0o644)


def commit() -> str:
    """The commit of the code that runs, with a plus if it was changed since; empty outside a checkout."""
    argv = ["git", "-C", str(Path(vferry.__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
