"""What operations have reserved on this host, durably: nobody else may touch it until it is released."""

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from vferry.host.api import Session
from vferry.host.durable import sync_directory, write_durably
from vferry.host.wire import SESSION_ID
from vferry.model.host import Claim
from vferry.model.problem import Exit, Problem

T = TypeVar("T", str | None, tuple[str, ...])

REMEMBERED = 200


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """A claim's file. A released one stays a while, so that its epoch cannot be gone below."""

    claim: Claim
    released: bool = False


class Claims:
    """The claims of one host, in a directory with one file for each operation.

    At most `slots` operations that take a slot have one at a time. There is one `Claims` for a directory: the agent's.
    """

    def __init__(self, directory: Path, slots: int) -> None:
        """Reads what an earlier agent has left. Problem ``claims-unreadable`` when a file is damaged."""
        self.directory = directory
        self.slots = slots
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._records: dict[str, _Record] = {}
        for path in sorted(directory.glob("*.json"), key=lambda p: (p.stat().st_mtime_ns, p.name)):
            record = _read(path)
            self._records[record.claim.operation] = record

    def all(self) -> tuple[Claim, ...]:
        """The claims that are held now."""
        return tuple(record.claim for record in self._records.values() if not record.released)

    def of(self, operation: str) -> Claim | None:
        record = self._records.get(operation)
        return record.claim if record and not record.released else None

    def of_guest(self, guest: str) -> Claim | None:
        return next((claim for claim in self.all() if claim.guest == guest), None)

    def of_vf(self, address: str) -> Claim | None:
        return next((claim for claim in self.all() if address in claim.vfs), None)

    def claim(
        self, session: Session, guest: str | None = None, vfs: tuple[str, ...] = (), *, slot: bool = True
    ) -> Claim:
        """Reserves a guest, VFs (their PCI addresses) and a slot, all or nothing; what is held already stays held.

        Problems: ``stale-controller``, ``guest-claimed``, ``vf-claimed``, ``no-slot``, and ``claim-differs`` when
        the operation holds another guest or other VFs here.
        """
        claim = self.would_be(session, guest, vfs, slot=slot)
        if self.of(session.operation) != claim:
            self._store(_Record(claim=claim))
        return claim

    def would_be(
        self, session: Session, guest: str | None = None, vfs: tuple[str, ...] = (), *, slot: bool = True
    ) -> Claim:
        """The claim that `claim` would make; raises what it would raise, and changes nothing."""
        _check_id(session.operation)
        self.fence(session)
        vfs = tuple(sorted(vfs))
        held = self.of(session.operation)
        if held is None and slot and len(self._in_slots()) >= self.slots:
            raise self._no_slot()
        self._check_free(session.operation, guest, vfs)
        if held is not None:
            guest = _joined(held, "guest", held.guest, guest)
            vfs = _joined(held, "VFs", held.vfs, vfs)
            slot = held.slot
        return Claim(operation=session.operation, epoch=session.epoch, guest=guest, vfs=vfs, slot=slot)

    def check(self, session: Session | None, guest: str | None = None, vf: str | None = None) -> Claim:
        """Makes sure that a session holds the claim on this host, and on `guest` and `vf` where they are given.

        A higher epoch takes the claim over, for good. Problems: ``stale-controller``, ``not-claimed``.
        """
        if session is None:
            raise _not_claimed("no operation", guest, vf)
        self.fence(session)
        claim = self.of(session.operation)
        if claim is None or (guest is not None and claim.guest != guest) or (vf is not None and vf not in claim.vfs):
            raise _not_claimed(f"operation {session.operation}", guest, vf)
        if session.epoch > claim.epoch:
            claim = msgspec.structs.replace(claim, epoch=session.epoch)
            self._store(_Record(claim=claim))
        return claim

    def release(self, session: Session) -> bool:
        """Ends an operation's claim; False when there was none. Problem ``stale-controller``."""
        self.fence(session)
        claim = self.of(session.operation)
        if claim is None:
            return False
        self._store(_Record(claim=msgspec.structs.replace(claim, epoch=session.epoch), released=True))
        self._forget_oldest()
        return True

    def fence(self, session: Session) -> None:
        """Problem ``stale-controller`` when a higher epoch has been seen for the operation."""
        record = self._records.get(session.operation)
        if record and session.epoch < record.claim.epoch:
            raise Problem(
                "stale-controller",
                f"Another controller has taken operation {session.operation} over (epoch {record.claim.epoch})",
                f"Look with: vferry operation show {session.operation}",
                exit=Exit.OPERATOR,
                operation=session.operation,
                epoch=record.claim.epoch,
            )

    def _check_free(self, operation: str, guest: str | None, vfs: tuple[str, ...]) -> None:
        for claim in self.all():
            if claim.operation == operation:
                continue
            if guest is not None and claim.guest == guest:
                raise _taken("guest-claimed", f"Guest {guest}", claim)
            for vf in vfs:
                if vf in claim.vfs:
                    raise _taken("vf-claimed", f"VF {vf}", claim)

    def _in_slots(self) -> list[Claim]:
        return [claim for claim in self.all() if claim.slot]

    def _no_slot(self) -> Problem:
        operations = [claim.operation for claim in self._in_slots()]
        return Problem(
            "no-slot",
            f"All {self.slots} migration slots of this host are taken, by {', '.join(operations)}",
            "Wait until one is done (vferry operation list), or raise slots in the agent's configuration",
            exit=Exit.REFUSED,
            operations=operations,
        )

    def _store(self, record: _Record) -> None:
        operation = record.claim.operation
        write_durably(self._path(operation), msgspec.json.encode(record))
        self._records.pop(operation, None)
        self._records[operation] = record

    def _forget_oldest(self) -> None:
        released = [operation for operation, record in self._records.items() if record.released]
        for operation in released[:-REMEMBERED]:
            self._path(operation).unlink(missing_ok=True)
            del self._records[operation]
        sync_directory(self.directory)

    def _path(self, operation: str) -> Path:
        return self.directory / f"{operation}.json"


def _read(path: Path) -> _Record:
    try:
        record = msgspec.convert(_as_now(msgspec.json.decode(path.read_bytes())), _Record)
        if path.stem != record.claim.operation:
            raise ValueError("it is named for another operation")
    except ValueError as error:
        raise Problem(
            "claims-unreadable",
            f"The claim in {path} cannot be read: {error}",
            "Find out what that operation did to this host's guests; then remove the file and start the agent",
            exit=Exit.OPERATOR,
            file=str(path),
        ) from error
    return record


def _as_now(stored: Any) -> Any:
    """A record as it is written now; an older agent's names one VF, or none."""
    claim = stored.get("claim") if isinstance(stored, dict) else None
    if isinstance(claim, dict) and (vf := claim.pop("vf", None)) is not None:
        claim["vfs"] = [vf]
    return stored


def _check_id(operation: str) -> None:
    # It becomes a file's name.
    if not SESSION_ID.fullmatch(operation):
        raise Problem("operation-invalid", f"{operation!r} is not an operation's id", "Use letters, digits, - and _")


def _joined(held: Claim, what: str, old: T, new: T) -> T:
    if old and new and old != new:
        raise Problem(
            "claim-differs",
            f"Operation {held.operation} holds the {what} {_said(old)} here, not {_said(new)}",
            "Release its claim before claiming something else",
            exit=Exit.REFUSED,
        )
    return old or new


def _said(what: str | tuple[str, ...] | None) -> str:
    return ", ".join(what) if isinstance(what, tuple) else str(what)


def _taken(code: str, what: str, claim: Claim) -> Problem:
    return Problem(
        code,
        f"{what} is claimed by operation {claim.operation}",
        _awaited(claim),
        exit=Exit.REFUSED,
        operation=claim.operation,
    )


def _awaited(claim: Claim) -> str:
    kind = claim.operation.split("-")[0]
    if kind in ("chain", "release"):
        return f"Wait until it has ended; if its controller is gone, ask again: vferry relay {kind}"
    if claim.slot or claim.guest:
        wait = f"Wait for it (vferry operation show {claim.operation})"
        return f"{wait}; if its controller is gone: vferry operation recover"
    return "It is the relay's: look with vferry relay show HOST"


def _not_claimed(who: str, guest: str | None, vf: str | None) -> Problem:
    what = " and ".join(x for x in (guest and f"guest {guest}", vf and f"VF {vf}") if x) or "anything"
    return Problem("not-claimed", f"The caller ({who}) has not claimed {what} on this host", "Claim it first")
