"""The measuring process: `python -m vferry.probe CONFIGURATION`, with the configuration as JSON.

It sends packets, or where a `port` is given watches a TCP connection to it. It writes one JSON object a line:
``ready`` or ``problem`` first, ``live`` each second, ``end`` last. It ends when its standard input closes, so nothing
remains of it when the process that started it is killed. It imports nothing beyond the standard library, so that it
starts fast and stays small.
"""

import contextlib
import errno
import gc
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from vferry.probe.connection import ConnectionWatch, connect
from vferry.probe.line import Line, enter_namespace, open_line, wall_offset
from vferry.probe.pace import bearable
from vferry.probe.prober import Prober
from vferry.probe.record import Recording


def emit(message: dict[str, Any]) -> None:
    """Writes a line, or drops it when nobody reads: measuring must not wait for a reader."""
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")


def problem(code: str, message: str, remedy: str) -> int:
    """Tells why there is no measurement."""
    emit({"event": "problem", "code": code, "message": message, "remedy": remedy})
    return 1


def hurry() -> None:
    """Goes before ordinary processes where that is allowed: each probe takes microseconds, but on time."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def measure(settings: dict[str, Any], line: Line) -> int:
    """Measures until the end. Raises OSError if the record cannot be written."""
    hurry()
    wanted = settings["rate"]
    rate = bearable(line, wanted) if settings["adapt"] else wanted
    header = {key: settings[key] for key in ("address", "method")} | {"rate": rate, "wall_offset_ns": wall_offset()}
    if rate < wanted:
        header["wanted"] = wanted
    recording = Recording(Path(settings["record"]), header)
    prober = Prober(line, recording, rate, settings["seconds"], emit, sys.stdin.fileno())
    signal.signal(signal.SIGTERM, lambda *_: prober.stop())
    gc.disable()
    emit({"event": "ready"} | header)
    try:
        prober.run()
    finally:
        recording.close()
        line.close()
    return 0


def packets(settings: dict[str, Any]) -> int:
    """Opens the line and measures."""
    address = settings["address"]
    try:
        line = open_line(settings["method"], address)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EPERM, errno.EACCES):
            return problem("probe-not-permitted", "Probing needs raw sockets", "Run as root, or with CAP_NET_RAW")
        return problem("probe-address", f"{address} cannot be probed: {error}", "Give an address that is reachable")
    try:
        return measure(settings, line)
    except OSError as error:
        return problem("probe-record", f"The record cannot be written: {error}", "Look at the file's folder and disk")


def connection(settings: dict[str, Any]) -> int:
    """Opens the TCP connection and watches it."""
    address, port = settings["address"], settings["port"]
    try:
        sock = connect(address, port)
    except OSError as error:
        why = error.strerror or str(error)
        remedy = "Let something listen there that sends back what it gets (RFC 862)"
        return problem("probe-tcp", f"No TCP connection to {address}, port {port}, could be made: {why}", remedy)
    with sock:
        watch = ConnectionWatch(sock, emit, sys.stdin.fileno())
        signal.signal(signal.SIGTERM, lambda *_: watch.stop())
        hurry()
        emit({"event": "ready", "opened_at": time.monotonic_ns()})
        watch.run()
    return 0


def main() -> int:
    """Measures what is asked for; returns the exit code."""
    # Ctrl-C goes to the whole terminal group; whoever started us decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = json.loads(sys.argv[1])
    os.set_blocking(sys.stdout.fileno(), False)
    name = settings["namespace"]
    try:
        if name:
            enter_namespace(name)
    except OSError as error:
        reason = f"The network namespace {name} cannot be entered: {error.strerror}"
        return problem("probe-namespace", reason, "See `ip netns list`; entering one needs root")
    return connection(settings) if "port" in settings else packets(settings)


if __name__ == "__main__":
    sys.exit(main())
