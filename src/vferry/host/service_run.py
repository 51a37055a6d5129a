"""The agent as a process: what it reads, what it locks, how it starts and stops."""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from vferry.host.certificates_tls import complete, host_files
from vferry.host.claims import Claims
from vferry.host.configuration import AgentConfiguration, read_configuration
from vferry.host.server import Server
from vferry.host.service import Handling, Service
from vferry.model.problem import Problem

log = logging.getLogger("vferry.agent")

FOLLOWS_EVERY_S = 5.0


def run(configuration_file: Path, directory: Path) -> None:
    """Runs the agent until SIGTERM or SIGINT.

    Problems: the configuration's, ``agent-running``, ``agent-not-permitted``, ``claims-unreadable``.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    configuration = read_configuration(configuration_file)
    try:
        with lock(directory):
            claims = Claims(directory / "claims", configuration.migration.slots)
            asyncio.run(serve(configuration, claims, _handlers(configuration, claims, directory), directory))
    except PermissionError as error:
        raise Problem("agent-not-permitted", f"The agent may not use {error.filename}", "Run it as root") from error


async def serve(configuration: AgentConfiguration, claims: Claims, handlers: Handling, directory: Path) -> None:
    """Serves until a signal; ends what is under way before it returns."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    service = Service(configuration.name, claims, handlers, directory)
    server = Server(service)
    files = host_files(directory)

    async def listen_tls() -> None:
        if configuration.listen is not None:
            await server.listen_tls(configuration.listen, files)

    service.installed = listen_tls
    try:
        await server.listen_socket(configuration.socket)
        if complete(files):
            try:
                await listen_tls()
            except (OSError, Problem) as error:
                # The socket must stay, or nobody could mend this by adding the host again.
                log.error("no TLS API, only the socket: %s", error)
        notify("READY=1")
        starting = asyncio.create_task(_started(handlers))
        await follow(handlers, starting, stopping)
        notify("STOPPING=1")
        await starting
    finally:
        await server.close()


async def _started(handlers: Handling) -> None:
    """Serving goes on whatever comes of it."""
    try:
        await handlers.started()
    except Problem as problem:
        log.error("not everything is as before the restart: %s", problem)


async def follow(handlers: Handling, starting: asyncio.Task[None], stopping: asyncio.Event) -> None:
    """Looks after what others may undo, once all is as it was, until the end; serving goes on whatever comes of it."""
    while not stopping.is_set():
        if starting.done():
            try:
                await handlers.follow()
            except Exception:
                log.exception("what others have undone is not put back")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), FOLLOWS_EVERY_S)


@contextlib.contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Holds the state directory for one agent. Problem ``agent-running``."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    path = directory / "agent.lock"
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(
                "agent-running", f"Another agent holds {path}", "Look with: systemctl status vferry-agent"
            ) from None
        yield


def notify(state: str) -> None:
    """Tells systemd, where it has started us (sd_notify). Its being gone is no reason to stop."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier, contextlib.suppress(OSError):
            notifier.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def _handlers(configuration: AgentConfiguration, claims: Claims, directory: Path) -> Handling:
    try:
        # Here, because libvirt's binding is only there where guests run.
        from vferry.host.handlers import Handlers
        from vferry.host.handlers.parts import Parts
    except ModuleNotFoundError as error:
        raise Problem(
            "module-missing",
            f"The agent needs Python's {error.name}",
            "Install it: apt install python3-libvirt (with a venv, made with --system-site-packages)",
        ) from error
    return Handlers(Parts(configuration, claims, directory))
