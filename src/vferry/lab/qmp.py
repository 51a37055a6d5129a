"""Talking to the emulator of a host: just what keeping and restoring a booted host needs."""

import json
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vferry.model.problem import Exit, Problem


class Monitor:
    """A connection to an emulator's QMP socket. Every method raises `Problem` when the emulator refuses."""

    def __init__(self, path: Path, bound: float = 20.0) -> None:
        """Connects as soon as the emulator has made the socket, `bound` seconds at most."""
        self._socket = self._connect(path, bound)
        self._socket.settimeout(120)
        self._file = self._socket.makefile("rw")
        self._file.readline()
        self.execute("qmp_capabilities")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._socket.close()

    @staticmethod
    def _connect(path: Path, bound: float) -> socket.socket:
        deadline = time.monotonic() + bound
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(path))
            except OSError as error:
                connection.close()
                if time.monotonic() > deadline:
                    raise Problem("lab-no-monitor", f"No monitor at {path}: {error}", exit=Exit.UNDONE) from None
                time.sleep(0.02)
            else:
                return connection

    def execute(self, command: str, **arguments: Any) -> Any:
        """Runs a command and returns what it answers."""
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while True:
            message = self._message()
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise Problem("lab-monitor", f"{command}: {message['error'].get('desc')}", exit=Exit.UNDONE)

    def migrate(self, command: str, uri: str) -> None:
        """Saves to or restores from `uri` ("migrate", "migrate-incoming") and returns when it is done."""
        for capability in ("events", "mapped-ram"):
            self.execute("migrate-set-capabilities", capabilities=[{"capability": capability, "state": True}])
        self.execute(command, uri=uri)
        while True:
            message = self._message()
            if message.get("event") == "MIGRATION":
                status = message["data"]["status"]
                if status == "completed":
                    return
                if status == "failed":
                    raise Problem("lab-state", f"{command} {uri} failed", exit=Exit.UNDONE)

    def _message(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise Problem("lab-monitor", "The emulator ended", exit=Exit.UNDONE)
        message: dict[str, Any] = json.loads(line)
        return message
