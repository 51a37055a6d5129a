"""Talking to QEMU (QMP)."""

import json
import socket
from typing import Any

from vferry.model.problem import Exit, Problem

PATIENCE_S = 120.0


class RefusedError(Exception):
    """QEMU does not do what it is asked."""


class Monitor:
    """The monitor of one QEMU, at the other end of a socket. `events` are those that came so far."""

    def __init__(self, sock: socket.socket) -> None:
        """Wait for QEMU to answer; `Problem` qemu-ended."""
        self.events: list[dict[str, Any]] = []
        self._socket = sock
        self._rest = b""
        sock.settimeout(PATIENCE_S)
        while "QMP" not in self._message():
            pass
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: object) -> Any:
        """Call a command and return what it answers; raises `RefusedError`, and `Problem` qemu-ended."""
        try:
            self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        except OSError as error:
            raise _ended() from error
        while True:
            message = self._message()
            if "error" in message:
                raise RefusedError(f"{command}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]

    def when(self, name: str, **data: object) -> float | None:
        """The time of the first event with such data, in seconds since 1970; None if there was none."""
        for event in self.events:
            if event["event"] == name and data.items() <= event.get("data", {}).items():
                stamp = event["timestamp"]
                return float(stamp["seconds"] + stamp["microseconds"] / 1e6)
        return None

    def close(self) -> None:
        self._socket.close()

    def _message(self) -> dict[str, Any]:
        while b"\n" not in self._rest:
            try:
                data = self._socket.recv(65536)
            except OSError:
                data = b""
            if not data:
                raise _ended()
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "event" in message:
            self.events.append(message)
        return message


def _ended() -> Problem:
    return Problem("qemu-ended", "QEMU has ended or does not answer", exit=Exit.UNDONE)
