"""A gateway as a process that outlives the agent: found again by its id and start time, so never mistaken."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from vferry.host.api import DirectMemory
from vferry.host.durable import write_durably
from vferry.model.compression import Codec
from vferry.model.problem import Exit, Problem

log = logging.getLogger("vferry.agent")

READY_TIMEOUT_S = 60.0
"""One that copies resident pages before it listens takes 10 s for that, and its start takes long on a slow host."""
STOP_TIMEOUT_S = 10.0
POLL_S = 0.02
COMMAND = (sys.executable, "-c", "from vferry.cli import main; main()", "gateway")


class GatewayRecord(Struct, frozen=True, kw_only=True):
    """What is known of an operation's gateway. Its file is root's alone, since it has the token."""

    role: str
    """``receive`` or ``send``."""
    peer: str
    address: str
    port: int
    token: str
    codec: Codec = Codec.NONE
    streams: int = 1
    delta_memory: int = 0
    """In MiB."""
    resident: tuple[str, ...] = ()
    """Where guests' memory is whose pages need not be sent."""
    direct: DirectMemory | None = None
    """Where the destination's QEMU takes the memory in, at the same address, if not through the gateways."""
    pid: int = 0
    started: int = 0
    """Clock ticks from boot to the process's start: with the id it names one process of this boot."""


class Wire(NamedTuple):
    """A gateway's wire, by what the gateway has said."""

    lost: bool
    """Whether it, which still runs, has lost the wire of a service that it holds."""
    rate: float | None
    """Bytes per second sent in the last second that it has told of; None before that."""
    ratio: float | None
    """Bytes of QEMU's stream for each on the wire so far; None where nothing was compressed."""
    direct: bool = False
    """Whether the memory does not go over it."""


_children: dict[int, subprocess.Popen[bytes]] = {}


def launch(directory: Path, record: GatewayRecord, arguments: list[str], confined: Sequence[str] = ()) -> GatewayRecord:
    """Starts a gateway and waits until it listens. Problem ``gateway-failed`` with what it said.

    `confined` are words before the command, of a program that becomes it; where that fails, it is done without.
    """
    if confined:
        try:
            return _launch(directory, record, [*confined, *COMMAND, *arguments])
        except (Problem, OSError) as problem:
            log.error("a gateway is tried again without its limit of processors: %s", problem)
    return _launch(directory, record, [*COMMAND, *arguments])


def _launch(directory: Path, record: GatewayRecord, command: list[str]) -> GatewayRecord:
    output, errors = directory / "gateway.out", directory / "gateway.err"
    # The events of an earlier one must not be taken for this one's.
    output.unlink(missing_ok=True)
    with output.open("xb") as out, errors.open("ab") as err:
        # A session of its own: signals to the agent's group do not reach it.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            cwd="/",
            env=environment(),
        )
    _children[process.pid] = process
    record = msgspec.structs.replace(record, pid=process.pid, started=_start_time(process.pid) or 0)
    try:
        save(directory, record)
    except OSError:
        # Nobody would find it again.
        stop(directory, record)
        raise
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not any(event.get("event") == "ready" for event in events(directory)):
        if not alive(record) or time.monotonic() > deadline:
            stop(directory, record)
            raise Problem(
                "gateway-failed",
                f"The gateway ({record.role}) did not start: {_last_words(errors)}",
                f"Look at {errors} on this host",
                exit=Exit.REFUSED,
            )
        time.sleep(POLL_S)
    return record


def environment() -> dict[str, str]:
    """That of a process which is to find this vferry, wherever it is installed."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def alive(record: GatewayRecord) -> bool:
    """Whether the very process still runs. One that has ended is waited for, if it is a child of this agent."""
    runs = record.pid > 0 and _start_time(record.pid) == record.started
    child = _children.get(record.pid)
    if not runs and child is not None and child.poll() is not None:
        _children.pop(record.pid, None)
    return runs


def stop(directory: Path, record: GatewayRecord) -> None:
    """Ends a gateway, by force when it does not end by itself; its last words stay in its output."""
    for number, patience_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, STOP_TIMEOUT_S)):
        if not alive(record):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, number)
        deadline = time.monotonic() + patience_s
        while alive(record) and time.monotonic() < deadline:
            time.sleep(POLL_S)
    if alive(record):
        raise Problem(
            "gateway-stuck",
            f"The gateway (process {record.pid}) does not end",
            f"Look at {directory} on this host",
            exit=Exit.OPERATOR,
        )


def events(directory: Path) -> list[dict[str, Any]]:
    """What a gateway has said so far, one JSON object a line; a line that is still being written is left out."""
    try:
        text = (directory / "gateway.out").read_text(errors="replace")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                found.append(event)
    return found


def wire(directory: Path) -> Wire:
    """How the wire of an operation's gateway stands."""
    record, told = load(directory), events(directory)
    lost = any(event.get("event") == "lost" for event in told)
    stats = [event for event in told if event.get("event") == "stats"][-2:]
    ratio = stats[-1].get("compression", {}).get("ratio") if stats else None
    direct = record is not None and record.direct is not None
    return Wire(lost and record is not None and alive(record), _rate(stats), ratio, direct)


def load(directory: Path) -> GatewayRecord | None:
    """The record of a directory; None when there is none, or it cannot be read."""
    try:
        return msgspec.json.decode((directory / "gateway.json").read_bytes(), type=GatewayRecord)
    except (OSError, msgspec.DecodeError):
        return None


def save(directory: Path, record: GatewayRecord) -> None:
    write_durably(directory / "gateway.json", msgspec.json.encode(record))


def _rate(stats: list[dict[str, Any]]) -> float | None:
    """From the last of two `stats`; from a single one, over all of its time."""
    if not stats:
        return None
    seconds, sent = (stats[-1][key] - (stats[0][key] if stats[1:] else 0) for key in ("seconds", "sent_bytes"))
    return sent / seconds if seconds > 0 else None


def _start_time(pid: int) -> int | None:
    """A process's start in clock ticks since boot; None when it has ended, even if nobody has waited for it."""
    try:
        # The name in brackets may contain anything: count from its end.
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if words[0] in "ZX" else int(words[19])


def _last_words(errors: Path) -> str:
    try:
        lines = errors.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:300] if lines else "it said nothing"
