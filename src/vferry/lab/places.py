"""Where the lab keeps things: this clone's folder, the machine's run folder and the machine's cache."""

from pathlib import Path

RUN = Path("/run/vferry-lab")  # short, since a socket's path holds 107 characters
LOCK = Path("/run/vferry-lab.lock")
CACHE = Path("/var/cache/vferry/lab")
PACKAGE = Path(__file__).resolve().parent.parent  # the installed `vferry` package
FILES = Path(__file__).resolve().parent / "files"
INSTALLED = Path("/var/lib/vferry")


def clone() -> Path:
    """The checkout this package runs from, or the state folder where it was installed without one."""
    root = PACKAGE.parent.parent
    return root if (root / "pyproject.toml").exists() else INSTALLED


def folder() -> Path:
    """Folder of this clone's lab: logs, keys and guests' disks."""
    return clone() / ".lab"


def console(name: str) -> Path:
    """Log of a host's serial console."""
    return folder() / f"{name}.console"
