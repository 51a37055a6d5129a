"""An agent reached through the system's ssh, which brings its socket here."""

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
from collections import deque
from pathlib import Path

import aiohttp

from vferry.model.problem import Exit, Problem

REMOTE_SOCKET = "/run/vferry/agent.sock"
START_S = 20.0
LONGEST_SOCKET = 100
"""A UNIX socket's path may have 107 bytes; ssh wants a few more for a temporary name."""


class SshTransport:
    """Runs ``ssh -N -L``: the operator's keys, agent, known hosts and configuration apply; nothing is asked."""

    url = "http://agent"
    server_name: str | None = None

    def __init__(self, name: str, user: str, host: str, port: int | None, directory: Path | None) -> None:
        self.name = name
        self.destination = f"{user}@{host}"
        self.port = port
        self._directory = Path(_private_directory(directory))
        self._socket = self._directory / "agent.sock"
        self._process: asyncio.subprocess.Process | None = None
        self._said: deque[str] = deque(maxlen=20)
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    def connector(self) -> aiohttp.BaseConnector:
        return aiohttp.UnixConnector(str(self._socket))

    async def ready(self) -> None:
        """Starts ssh unless it runs. Problem ``host-unreachable``."""
        async with self._starting:
            if self._process is not None and not _has_ended(self._process):
                return
            await self._end()
            await self._start()

    def explain(self, error: BaseException) -> tuple[str, str]:
        remedy = f"Start it there: ssh {self._shown()} systemctl start vferry-agent"
        said = self._last_words()
        if "open failed" in said or isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError):
            return f"ssh reaches {self.destination}, but no agent answers on its {REMOTE_SOCKET}", remedy
        return f"the connection through ssh to {self.destination} broke ({said or error})", remedy

    async def aclose(self) -> None:
        """Ends ssh and removes its socket."""
        await self._end()
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _start(self) -> None:
        self._said.clear()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *_bound_to_us(),
                *self._command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                # ^C in a terminal is for vferry, which then still needs its hosts.
                start_new_session=True,
            )
        except FileNotFoundError:
            raise self._unreachable(
                "there is no ssh on this machine", "Install it: apt install openssh-client"
            ) from None
        self._reading = asyncio.create_task(self._read(self._process))
        try:
            async with asyncio.timeout(START_S):
                await self._wait_until_it_listens(self._process)
        except TimeoutError:
            await self._end()
            cause = f"ssh to {self.destination} was not up after {START_S:.0f} s"
            raise self._unreachable(cause, "Check the name, the network and the firewall") from None

    async def _wait_until_it_listens(self, process: asyncio.subprocess.Process) -> None:
        while not await self._listens():
            if process.returncode is not None:
                if self._reading:
                    await self._reading
                cause = f"ssh says: {self._last_words() or f'exit code {process.returncode}'}"
                raise self._unreachable(cause, f"Make this work without a question: ssh {self._shown()} true")
            await asyncio.sleep(0.02)

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(self._socket)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        writer.close()
        return True

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stderr is not None:
            async for line in process.stderr:
                self._said.append(line.decode(errors="replace").strip())

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(5):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._reading is not None:
            await self._reading
            self._reading = None
        self._socket.unlink(missing_ok=True)

    def _command(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ExitOnForwardFailure": "yes",
            "StreamLocalBindUnlink": "yes",
            "StreamLocalBindMask": "0177",
            "ControlMaster": "no",
            "ControlPath": "none",
            "ConnectTimeout": "10",
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
        }
        return [
            "ssh",
            "-N",
            "-T",
            *(word for key, value in options.items() for word in ("-o", f"{key}={value}")),
            "-L",
            f"{self._socket}:{REMOTE_SOCKET}",
            *(["-p", str(self.port)] if self.port else []),
            "--",
            self.destination,
        ]

    def _shown(self) -> str:
        return f"-p {self.port} {self.destination}" if self.port else self.destination

    def _last_words(self) -> str:
        # ssh's notes about keys that it learns are no reason of anything.
        lines = [line for line in self._said if line and not re.match(r"Warning: Permanently added", line)]
        return lines[-1].rstrip(".") if lines else ""

    def _unreachable(self, cause: str, remedy: str) -> Problem:
        message = f"Host {self.name} cannot be reached: {cause}"
        return Problem("host-unreachable", message, remedy, exit=Exit.REFUSED, host=self.name)


def _has_ended(process: asyncio.subprocess.Process) -> bool:
    """Whether it has, as the kernel knows it: asyncio may not have been told yet."""
    if process.returncode is not None:
        return True
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _bound_to_us() -> list[str]:
    """Makes ssh end with us, however we end."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []


def _private_directory(directory: Path | None) -> str:
    """A new directory that only we may enter; elsewhere when the path is too long for a socket."""
    if directory is not None and len(os.fsencode(directory)) + len("/ssh-12345678/agent.sock") <= LONGEST_SOCKET:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return tempfile.mkdtemp(prefix="ssh-", dir=directory)
    return tempfile.mkdtemp(prefix="vferry-ssh-")
