"""An agent without a hypervisor: the true server, claims and certificates, over handlers that a test decides."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from vferry.host.api import Done, Operation, Session, TakeInventory
from vferry.host.certificates_tls import complete, host_files
from vferry.host.claims import Claims
from vferry.host.configuration import Listen
from vferry.host.server import Server
from vferry.host.service import Service
from vferry.model.host import Inventory, MigrationEndpoint, Versions

Answer = Callable[[Any], Struct]


def empty_inventory(name: str) -> Inventory:
    """A host with nothing on it."""
    return Inventory(
        name=name,
        versions=Versions(vferry="0.1.0", kernel="6.12.0", qemu=(10, 0, 0), libvirt=(11, 3, 0)),
        migration=MigrationEndpoint(address="127.0.0.1", ports=(49200, 49215)),
    )


class FakeHandlers:
    """Answers with what `answers` says for an operation's type, else `Done`; remembers what it was asked."""

    def __init__(self, inventory: Inventory, claims: Claims) -> None:
        self.inventory = inventory
        self.claims = claims
        self.answers: dict[type[Operation[Any]], Answer] = {}
        self.asked: list[tuple[Operation[Any], Session | None]] = []
        self.vfs: dict[str, str] = {}
        self.ended: list[str] = []
        self.wait: asyncio.Event | None = None

    async def handle(self, operation: Operation[Any], session: Session | None) -> Struct:
        self.asked.append((operation, session))
        if self.wait is not None:
            await self.wait.wait()
        if type(operation) in self.answers:
            return self.answers[type(operation)](operation)
        if isinstance(operation, TakeInventory):
            return replace(self.inventory, claims=self.claims.all())
        return Done()

    async def started(self) -> None:
        pass

    async def follow(self) -> None:
        pass

    async def users_of(self, vfs: tuple[str, ...]) -> dict[str, str]:
        return {vf: self.vfs[vf] for vf in vfs if vf in self.vfs}

    async def released(self, operation: str) -> None:
        self.ended.append(operation)


class FakeAgent:
    """One running agent. `port` is where its TLS API listens, None until it has a certificate."""

    def __init__(self, directory: Path, inventory: Inventory) -> None:
        self.directory = directory
        self.socket = directory / "agent.sock"
        self.claims = Claims(directory / "claims", inventory.migration.slots)
        self.handlers = FakeHandlers(inventory, self.claims)
        self.service = Service(inventory.name, self.claims, self.handlers, directory)
        self.server = Server(self.service)
        self.service.installed = self.listen_tls
        self.port: int | None = None

    @property
    def uri(self) -> str:
        return f"unix://{self.socket}"

    @property
    def tls_uri(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def listen_tls(self) -> None:
        self.port = await self.server.listen_tls(
            Listen(address="127.0.0.1", port=self.port or 0), host_files(self.directory)
        )


@asynccontextmanager
async def fake_agent(directory: Path, inventory: Inventory) -> AsyncIterator[FakeAgent]:
    """Runs an agent in this process, on a socket in `directory` and, once certified, on 127.0.0.1."""
    agent = FakeAgent(directory, inventory)
    await agent.server.listen_socket(agent.socket)
    if complete(host_files(directory)):
        await agent.listen_tls()
    try:
        yield agent
    finally:
        await agent.server.close()
