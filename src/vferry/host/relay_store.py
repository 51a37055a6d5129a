"""What the relay of this host is: kept durably, so that whoever comes after a crash can go on or take it back."""

from pathlib import Path
from typing import TypeVar

import msgspec

from vferry.host.api import Done, Session
from vferry.host.durable import sync_directory, write_durably
from vferry.model.problem import Exit, Problem
from vferry.model.relay import Relay

T = TypeVar("T")


class RelayStore:
    """One file, written whole. Its guests' ports are not in it (`RelayPorts`)."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "relay.json"

    def read(self) -> Relay | None:
        """None where there is no relay. Problem ``relay-unreadable``."""
        return read_kept(self._path, Relay, "the relay", "Take back by hand what it names, then remove the file")

    def keep(self, session: Session, relay: Relay) -> Done:
        """Keeps a relay of the session's operation. Problem ``relay-anothers``."""
        now, relay = self.read(), msgspec.structs.replace(relay, ports=())
        if relay.operation != session.operation:
            raise _anothers(relay.operation)
        if now is not None and now.operation != session.operation:
            raise _anothers(now.operation)
        if now == relay:
            return Done(changed=False)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(self._path, msgspec.json.encode(relay))
        return Done(detail=relay.state)

    def forget(self, session: Session) -> Done:
        """Forgets the relay of the session's operation; another's stays."""
        now = self.read()
        if now is None or now.operation != session.operation:
            return Done(changed=False)
        self._path.unlink()
        sync_directory(self._path.parent)
        return Done()


def read_kept(path: Path, kind: type[T], what: str, remedy: str) -> T | None:
    """What a file keeps of the relay; None where there is none. Problem ``relay-unreadable``."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise Problem(
            "relay-unreadable",
            f"What {path} says of {what} cannot be read: {error}",
            remedy,
            exit=Exit.OPERATOR,
            file=str(path),
        ) from error


def _anothers(operation: str) -> Problem:
    return Problem(
        "relay-anothers",
        f"The relay of this host is that of operation {operation}",
        "Look with: vferry relay show HOST",
        exit=Exit.REFUSED,
        operation=operation,
    )
