"""Gateways as processes: options, event lines, signals, no process and no socket left."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from vferry.cli.gateway import command
from vferry.model.problem import Problem
from vferry.transfer.process import TICK_S

from .conftest import WAIT_S, Authority

VFERRY = Path(sys.executable).with_name("vferry")
SIGNAL_S = 0.5
"""For a process to do what a signal asks of it."""


class Process:
    """A gateway process and its events."""

    started: ClassVar[list["Process"]] = []

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [VFERRY, "gateway", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.started.append(self)
        assert self._process.stdout
        self.ready: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert self.ready["event"] == "ready"

    def event(self, **content: object) -> dict[str, Any]:
        """Wait for an event with the given content."""
        assert self._process.stdout
        while True:
            event: dict[str, Any] = json.loads(self._process.stdout.readline())
            if content.items() <= event.items():
                return event

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, list[dict[str, Any]], str]:
        """Send a signal; return exit code, events and standard error."""
        self.send(number)
        out, err = self._process.communicate(timeout=WAIT_S)
        return self._process.returncode, [json.loads(line) for line in out.splitlines()], err

    @classmethod
    def stacks(cls) -> str:
        """Where the threads of all that were started are, and what they have counted at last; which ends them."""
        for process in cls.started:
            process.send(signal.SIGUSR1)
        time.sleep(SIGNAL_S)
        ends = [process.end() for process in cls.started]
        return "\n".join(f"{errors}\n{events[-3:]}" for _, events, errors in ends)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """End the gateways of a test that failed half-way."""
    yield
    while Process.started:
        Process.started.pop().kill()


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(WAIT_S)
        sock.bind(str(tmp_path / "far.sock"))
        sock.listen()
        yield sock


def pair(tmp_path: Path, authority: Authority, *extra: str, sending: tuple[str, ...] = ()) -> tuple[Process, Process]:
    def files(name: str) -> list[str]:
        credentials = authority.issue(name)
        return ["--ca", str(credentials.ca), "--cert", str(credentials.cert), "--key", str(credentials.key), *extra]

    far = f"unix:{tmp_path}/far.sock"
    near = f"unix:{tmp_path}/near.sock"
    receive = Process("receive", "--listen", "127.0.0.1:0", "--connect", far, "--peer", "source", *files("destination"))
    address = receive.ready["address"]
    there = ("--connect", address, "--peer", "destination")
    send = Process("send", "--listen", near, *there, *sending, *files("source"))
    return send, receive


def test_a_gateway_tells_where_its_threads_are(tmp_path: Path) -> None:
    for name in ("one", "two"):
        place = f"unix:{tmp_path}/{name}.sock"
        Process("send", "--listen", place, "--connect", "127.0.0.1:1", "--insecure-plaintext")
    found = Process.stacks()
    assert len(re.findall(r'process\.py", line \d+ in run$', found, re.MULTILINE)) == 2
    assert found.count("in _accept") == 2


def test_two_processes_carry_report_and_leave_nothing(
    tmp_path: Path, authority: Authority, destination: socket.socket
) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    send, receive = pair(tmp_path, authority, "--json", "--token-file", str(token))
    assert send.ready["services"] == {"memory": f"unix:{tmp_path}/near.sock"}
    with socket.socket(socket.AF_UNIX) as near:
        near.connect(str(tmp_path / "near.sock"))
        far, _ = destination.accept()
        with far:
            near.sendall(b"memory")
            near.shutdown(socket.SHUT_WR)
            assert far.recv(100, socket.MSG_WAITALL) == b"memory"
        assert near.recv(1) == b""
    for process, role, key in ((send, "send", "sent_bytes"), (receive, "receive", "received_bytes")):
        # On a slow machine one is told before anything was opened, too.
        process.event(open=0, **{key: 6})
        code, events, errors = process.end()
        assert (code, errors) == (0, "")
        end = events[-1]
        assert (end["event"], end["role"], end[key], end["connections"], end["failed"]) == ("end", role, 6, 1, 0)
        assert end["cpu_s"] > 0
        assert end["cpu_peak"] > 0
        assert end["rates"] == [list(rate) for rate in end["rates"]]
        assert all(event["event"] == "stats" for event in events[:-1])
    assert not (tmp_path / "near.sock").exists()


def test_a_gateway_that_was_stopped_for_a_while_goes_on(
    tmp_path: Path, authority: Authority, destination: socket.socket
) -> None:
    processes = pair(tmp_path, authority, "--json")
    with socket.socket(socket.AF_UNIX) as near:
        near.connect(str(tmp_path / "near.sock"))
        far, _ = destination.accept()
        with far:
            for process in processes:
                process.send(signal.SIGSTOP)
            time.sleep(1.5 * TICK_S)
            for process in processes:
                process.send(signal.SIGCONT)
            for process in processes:
                process.event(event="stats")
                process.event(event="stats")
            near.sendall(b"memory")
            assert far.recv(100) == b"memory"


@pytest.mark.parametrize("victim", [0, 1])
def test_a_gateway_killed_in_the_middle_breaks_both_ends(
    tmp_path: Path, authority: Authority, destination: socket.socket, victim: int
) -> None:
    processes = pair(tmp_path, authority)
    with socket.socket(socket.AF_UNIX) as near:
        near.settimeout(WAIT_S)
        near.connect(str(tmp_path / "near.sock"))
        far, _ = destination.accept()
        with far:
            far.settimeout(WAIT_S)
            near.sendall(bytes(100_000))
            assert far.recv(1)
            processes[victim].kill()
            with suppress(BrokenPipeError, ConnectionResetError):
                while True:
                    near.sendall(bytes(1 << 16))
            while far.recv(1 << 20):
                pass
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                far.sendall(b"x")
    _, events, errors = processes[1 - victim].end(signal.SIGINT)
    assert events[-1]["failed"] == 1
    assert "connection broken" in errors


def test_plaintext_warns_loudly(tmp_path: Path) -> None:
    process = Process("send", "--listen", f"unix:{tmp_path}/a", "--connect", "127.0.0.1:1", "--insecure-plaintext")
    code, _, errors = process.end()
    assert code == 0
    assert "WARNING: no TLS" in errors


def test_a_reader_who_goes_away_does_not_stop_the_gateway(tmp_path: Path) -> None:
    arguments = ["send", "--listen", f"unix:{tmp_path}/a", "--connect", "127.0.0.1:1", "--insecure-plaintext", "--json"]
    process = subprocess.Popen([VFERRY, "gateway", *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)
    process.terminate()
    assert process.wait(WAIT_S) == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["send", "--listen", "unix:/a", "--connect", "h:1"], "tls-missing"),
        (["receive", "--listen", "h:1", "--connect", "unix:/a", "--ca=a", "--cert=a", "--key=a"], "tls-missing"),
        (["send", "--listen", "unix:/a", "--connect", "h:1", "--ca=/no", "--cert=/no", "--key=/no"], "tls-files"),
        (["send", "--listen", "unix:/a", "--connect", "h:1", "--insecure-plaintext", "--ca=a"], "tls-contradicted"),
        (
            ["receive", "--listen", "h:1", "--connect", "control=unix:/a", "--insecure-plaintext"],
            "plaintext-service",
        ),
        (["send", "--listen", "/a", "--connect", "h:1"], "address-invalid"),
        (["send", "--listen", "unix:/a", "--connect", "h:1", "--token-file", "/no"], "token-invalid"),
        (["send", "--listen", "unix:/a", "--connect", "h:1", "--token-file", "/dev/zero"], "token-invalid"),
    ],
)
def test_what_cannot_work_is_said_at_once(arguments: list[str], code: str) -> None:
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, Problem)
    assert result.exception.code == code


def test_starting_imports_little() -> None:
    script = "import sys, vferry.transfer.process; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert not {"asyncio", "cryptography", "dataclasses", "msgspec", "aiohttp", "numpy", "logging"} & set(loaded)
