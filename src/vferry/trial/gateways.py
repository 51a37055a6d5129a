"""The gateway pair of a trial, as processes at the two ends of the link."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vferry.model.problem import Exit, Problem
from vferry.trial.certificates import Identity
from vferry.trial.link import ADDRESSES, DESTINATION, SOURCE, Link
from vferry.trial.process import Process
from vferry.trial.started import Started

PORT = 7001
GATEWAY = [sys.executable, "-m", "vferry", "gateway"]


class Gateways(Started):
    """Both gateways, which carry from `entrance` at the source to `exit` at the destination: unix sockets."""

    def __init__(
        self,
        link: Link,
        folder: Path,
        identities: tuple[Identity, Identity] | None,
        codec: str,
        resident: Sequence[str] = (),
    ) -> None:
        """Without identities they talk in plaintext. `resident`: places of other guests' memory at the destination."""
        super().__init__()
        self._link = link
        self._codec = codec
        self._resident = [word for place in resident for word in ("--resident", place)]
        self._identities = identities
        self.entrance = folder / "entrance.sock"
        self.exit = folder / "exit.sock"
        self.send: Process
        self.receive: Process

    def _start(self) -> None:
        there = f"{ADDRESSES[DESTINATION]}:{PORT}"
        leads = ("--listen", there, "--connect", f"unix:{self.exit}", *self._resident)
        self.receive = self._started(DESTINATION, "receive", *leads)
        into = f"unix:{self.entrance}"
        self.send = self._started(SOURCE, "send", "--listen", into, "--connect", there, "--codec", self._codec)

    def end(self) -> tuple[dict[str, Any], list[str]]:
        """End both and return what the sender says of its compression, and what both have logged."""
        (sent, sent_log), (_, received_log) = (_end(process) for process in (self.send, self.receive))
        return sent.get("compression", {}), sent_log + received_log

    def _started(self, side: int, *arguments: str) -> Process:
        security = self._identities[side].gateway_options if self._identities else ["--insecure-plaintext"]
        argv = self._link.inside(side, [*GATEWAY, *arguments, *security])
        process = self._stack.enter_context(Process(argv, out=subprocess.PIPE))
        if b'"ready"' not in process.output.readline():
            raise Problem("gateway-ended", f"A gateway does not start: {process.errors()}", exit=Exit.UNDONE)
        return process


def _end(process: Process) -> tuple[dict[str, Any], list[str]]:
    out, errors = process.end()
    lines = out.splitlines()
    return json.loads(lines[-1]) if lines else {}, errors.decode(errors="replace").splitlines()
