"""The gateway as a process: event lines on standard output, signals, the tick of every second.

Events are JSON objects, one a line, the first key `event`: `ready` once it listens; `lost` when the wire of a held
service breaks; with `--json` `stats` about every second; `end` last. Who reads them slowly or not at all, or has no
room for them, loses lines but never stops the gateway; `lost` is said again until it is written.
"""

import faulthandler
import json
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from vferry.model.problem import Problem
from vferry.transfer.gateway import Gateway
from vferry.transfer.wire import TOKEN_LIMIT

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
TICK_S = 1.0
EVENT_S = 2.0

_untold: set[str] = set()
"""Held services that have lost their wire, while there was no room to say so."""


def run(gateway: Gateway, *, details: bool) -> None:
    """Serve until SIGTERM or SIGINT; raises `Problem` if it cannot listen.

    `details` prints a `stats` line every second and the rates in the `end` line. SIGUSR1 prints where each thread is.
    """
    events = Events()
    faulthandler.register(signal.SIGUSR1)
    _allow_files()
    # Blocked before there are threads, so that all inherit it and only this one takes the signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    gateway.start()
    services = {name: f"unix:{path}" for name, path in gateway.services.items()}
    ready = {"role": gateway.role, "pid": os.getpid(), "address": str(gateway.address), "services": services}
    events.write("ready", ready)
    while not _is_to_stop(TICK_S):
        gateway.tick()
        for service in tuple(_untold):
            lost(service)
        sample = gateway.statistics.sample()
        if details:
            events.write("stats", sample, patience_s=0)
    gateway.stop()
    events.write("end", {"role": gateway.role, **gateway.statistics.report(rates=details)})


def _is_to_stop(patience_s: float) -> bool:
    """Wait for one of the signals."""
    found = signal.sigtimedwait(STOP_SIGNALS, patience_s)
    # Where SIGSTOP or a debugger makes a wait last too long, Python returns what is no signal's.
    return found is not None and found.si_signo in STOP_SIGNALS


def _allow_files() -> None:
    """Allow as many open files as there may be: a connection has two sockets, and a pipe of two files."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def lost(service: str) -> None:
    """Say that the wire of a held service is lost; from any thread, as so short a line is written at once, or later.

    Without it nobody learns that a guest which is paused for its switchover waits for a decision.
    """
    if Events().write("lost", {"service": service}):
        _untold.discard(service)
    else:
        _untold.add(service)


class Events:
    """Event lines on standard output that never block for longer than asked."""

    _torn = False
    """Whether standard output ends with a part of a line, whichever of these wrote it."""

    def __init__(self) -> None:
        self._file = sys.stdout.fileno()
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLOUT)

    def write(self, event: str, content: dict[str, Any], patience_s: float = EVENT_S) -> bool:
        """Write a line, or give up when the reader takes nothing for `patience_s`, or is gone, or the disk is full.

        Whether all of it is written.
        """
        line = json.dumps({"event": event, **content}).encode() + b"\n"
        if Events._torn:
            line = b"\n" + line
        deadline = time.monotonic() + patience_s
        while line:
            # A pipe that is writable takes this much at once.
            if not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return False
            try:
                line = line[os.write(self._file, line[: select.PIPE_BUF]) :]
            except OSError:
                return False
            Events._torn = bool(line)
        return True


def log(message: str) -> None:
    """Write a line for people to standard error."""
    with suppress(OSError):  # whoever reads it may be gone
        print(f"vferry gateway: {message}", file=sys.stderr, flush=True)


def read_token(path: Path) -> bytes:
    """Read a token of 1 to 256 bytes, its last newline left out; raises `Problem` token-invalid."""
    try:
        with path.open("rb") as file:
            token = file.read(TOKEN_LIMIT + 2).removesuffix(b"\n")
    except OSError as error:
        raise Problem("token-invalid", f"Cannot read the token: {error}", "Check --token-file") from error
    if not 1 <= len(token) <= TOKEN_LIMIT:
        raise Problem("token-invalid", f"{path} holds no token of 1 to {TOKEN_LIMIT} bytes", "Write another one")
    return token
