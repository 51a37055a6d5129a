"""The agent's own part: claims and certificates; what acts on libvirt and on NICs is handed on."""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from vferry.host.api import (
    CertificateRequest,
    ClaimResources,
    Done,
    InstallCertificate,
    Operation,
    ReleaseClaim,
    RequestCertificate,
    Session,
)
from vferry.host.certificates_tls import host_files
from vferry.host.claims import Claims
from vferry.model.host import Claim
from vferry.model.problem import Exit, Problem

if TYPE_CHECKING:
    from vferry.host.certificates import Certificates

log = logging.getLogger("vferry.agent")

QUIET_S = 60.0
"""How long a claim or a release waits for what the operation still has under way here."""


class Handling(Protocol):
    """What acts on this host."""

    async def handle(self, operation: Operation[Any], session: Session | None) -> Struct: ...

    async def started(self) -> None:
        """Puts back what a restart of the host has taken away."""
        ...

    async def follow(self) -> None:
        """Puts back what others may undo meanwhile."""
        ...

    async def users_of(self, vfs: tuple[str, ...]) -> dict[str, str]:
        """The guests that have VFs, by the VFs' addresses."""
        ...

    async def released(self, operation: str) -> None:
        """Ends what an operation has left running."""
        ...


class Service:
    """Answers operations on one host."""

    def __init__(self, name: str, claims: Claims, handlers: Handling, directory: Path) -> None:
        self.name = name
        self.claims = claims
        self.handlers = handlers
        self.directory = directory
        self.installed: Callable[[], Awaitable[None]] | None = None
        """Called after new certificates are on the disk."""
        self._claiming = asyncio.Lock()
        self._under_way: dict[str, set[asyncio.Event]] = defaultdict(set)

    async def handle(self, operation: Operation[Any], session: Session | None) -> Struct:
        """The answer to an operation. Raises `Problem`."""
        match operation:
            case ClaimResources():
                return await self._claim(operation, _required(session))
            case ReleaseClaim():
                return await self._release(_required(session))
            case RequestCertificate():
                return CertificateRequest(pem=self._certificates().request())
            case InstallCertificate():
                return await self._install(operation)
        with self._counted(session):
            return await self.handlers.handle(operation, session)

    async def _claim(self, wanted: ClaimResources, session: Session) -> Claim:
        async with self._claiming:
            claim = self.claims.would_be(session, wanted.guest, wanted.vfs, slot=wanted.slot)
            users = await self.handlers.users_of(wanted.vfs) if wanted.vfs else {}
            for vf, user in users.items():
                if user != claim.guest:
                    raise self._in_use(vf, user)
            claim = self.claims.claim(session, wanted.guest, wanted.vfs, slot=wanted.slot)
        # What an older controller has begun ends before a newer one looks at what there is.
        await self._quiet(session)
        return claim

    def _in_use(self, vf: str, user: str) -> Problem:
        return Problem(
            "vf-in-use",
            f"VF {vf} of {self.name} belongs to guest {user}",
            "Choose another VF, or take it from that guest's definition",
            exit=Exit.REFUSED,
            guest=user,
        )

    async def _release(self, session: Session) -> Done:
        self.claims.fence(session)
        await self._quiet(session)
        # What cannot be stopped keeps its claim.
        await self.handlers.released(session.operation)
        return Done(changed=self.claims.release(session))

    async def _install(self, operation: InstallCertificate) -> Done:
        changed = self._certificates().install(operation.certificate, operation.ca)
        if changed and self.installed is not None:
            await self.installed()
        return Done(changed=changed)

    def _certificates(self) -> "Certificates":
        # Imported here because it is slow to import and rarely needed.
        from vferry.host.certificates import Certificates

        return Certificates(host_files(self.directory), self.name)

    @contextlib.contextmanager
    def _counted(self, session: Session | None) -> Iterator[None]:
        if session is None:
            yield
            return
        ended = asyncio.Event()
        self._under_way[session.operation].add(ended)
        try:
            yield
        finally:
            ended.set()
            self._under_way[session.operation].discard(ended)
            if not self._under_way[session.operation]:
                del self._under_way[session.operation]

    async def _quiet(self, session: Session) -> None:
        try:
            async with asyncio.timeout(QUIET_S):
                for ended in tuple(self._under_way.get(session.operation, ())):
                    await ended.wait()
        except TimeoutError:
            raise Problem(
                "operation-busy",
                f"{self.name} is still at work for operation {session.operation}",
                "Try again when it is done",
                exit=Exit.OPERATOR,
            ) from None


def _required(session: Session | None) -> Session:
    if session is None:
        raise Problem("session-missing", "A claim belongs to an operation, and the call names none", "Send its id")
    return session
