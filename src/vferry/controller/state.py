"""Where a controller keeps what it must not forget.

An agent on the same machine keeps its own under ``/var/lib/vferry`` too: the names below are not its.
"""

import os
from pathlib import Path

from msgspec import Struct


class State(Struct, frozen=True, kw_only=True):
    """A controller's state folder and the names in it."""

    root: Path

    @property
    def hosts(self) -> Path:
        return self.root / "hosts.json"

    @property
    def pki(self) -> Path:
        """The CA and the controller's own certificate."""
        return self.root / "pki-controller"

    @property
    def operations(self) -> Path:
        return self.root / "operations"

    @property
    def journal(self) -> Path:
        return self.root / "journal.sqlite"

    @property
    def configuration(self) -> Path:
        return self.root / "config.toml"

    @property
    def sockets(self) -> Path:
        """Where ssh brings the agents' sockets."""
        return self.root / "run"


def find_state() -> State:
    """The folder named by VFERRY_STATE, else /var/lib/vferry for root, else the XDG state folder's. Made if absent."""
    root = _root()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    return State(root=root)


def _root() -> Path:
    if named := os.environ.get("VFERRY_STATE"):
        return Path(named).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/vferry")
    # XDG: a relative path is to be ignored.
    xdg = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (xdg if xdg.is_absolute() else Path.home() / ".local/state") / "vferry"
