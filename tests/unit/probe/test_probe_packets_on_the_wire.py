"""Real packets, between two network namespaces that each test makes and removes."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from vferry.cli.probe import command
from vferry.model.problem import Exit, Problem
from vferry.model.report import Phase
from vferry.probe.analysis import attribute
from vferry.probe.record import ProbeRecord
from vferry.probe.session import Live, ProbeSession
from vferry.probe.tcp import TcpSession

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="making network namespaces needs root and ip"
)

FAR_MAC = "02:00:00:00:00:02"


class Pair(NamedTuple):
    """Two namespaces with a cable between them: `near` probes, `far` answers."""

    near: str
    far: str
    address: str
    address6: str


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = f"vfp{os.getpid()}a", f"vfp{os.getpid()}b"
    try:
        for name in (near, far):
            ip("netns", "add", name)
        ip("link", "add", "p0", "netns", near, "type", "veth", "peer", "name", "p0", "netns", far, "address", FAR_MAC)
        for at, name in enumerate((near, far), 1):
            ip("-n", name, "addr", "add", f"192.0.2.{at}/24", "dev", "p0")
            ip("-n", name, "addr", "add", f"2001:db8::{at}/64", "dev", "p0", "nodad")
            ip("-n", name, "link", "set", "p0", "up")
        yield Pair(near, far, "192.0.2.2", "2001:db8::2")
    finally:
        for name in (near, far):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "delete", name)


def gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has asked for its end yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


async def reachable(address: str, pair: Pair, path: Path) -> None:
    """Waits until the pair answers: a new link takes a moment."""
    async with await ProbeSession.start(address, path, rate=50, namespace=pair.near) as session:
        async for live in session.lines():
            if live.gap_ms < 500:
                break


@pytest.fixture
async def ready(pair: Pair, tmp_path: Path) -> Pair:
    async with asyncio.timeout(30):
        addresses = (pair.address, pair.address6)
        await asyncio.gather(
            *(reachable(address, pair, tmp_path / f"warm{at}") for at, address in enumerate(addresses))
        )
    return pair


@pytest.mark.parametrize(("method", "six"), [("icmp", False), ("icmp", True), ("arp", False)])
async def test_a_quiet_network_loses_nothing(ready: Pair, tmp_path: Path, method: str, *, six: bool) -> None:
    address = ready.address6 if six else ready.address
    path = tmp_path / "probes"
    async with await ProbeSession.start(address, path, method=method, namespace=ready.near, seconds=2) as session:
        told: list[Live] = [live async for live in session.lines()]
        record = await session.stop()
    network = attribute(record, [])
    assert (network.lost, network.unsent) == (0, 0)
    # What the machine does not come to is given up: here it may be most of them.
    assert 100 <= network.sent <= 2000
    assert network.longest_gap_ms is not None
    assert network.longest_gap_ms < 200
    assert told[-1].sent == network.sent
    now = record.wall_offset_ns + record.sent[-1]
    assert abs(now / 1e9 - time.time()) < 60


async def test_an_interrupted_link_is_a_gap_in_its_phase(ready: Pair, tmp_path: Path) -> None:
    started = time.monotonic()
    async with await ProbeSession.start(ready.address, tmp_path / "probes", namespace=ready.near) as session:
        await asyncio.sleep(1)
        down = time.monotonic()
        ip("-n", ready.far, "link", "set", "p0", "down")
        await asyncio.sleep(0.3)
        ip("-n", ready.far, "link", "set", "p0", "up")
        async with asyncio.timeout(20):
            async for live in session.lines():
                if live.lost + live.late > 0 and live.gap_ms < 100:
                    break
        record = await session.stop()
        assert (await session.stop()).sent == record.sent
    phases = [(Phase.PREPARE, started, down - 0.1), (Phase.COPY, down - 0.1, time.monotonic())]
    network = attribute(record, phases)
    assert network.lost + network.late > 0
    gap = network.phases[Phase.COPY].longest_gap_ms
    assert gap is not None
    assert 200 < gap < 15_000
    assert gap == network.longest_gap_ms
    assert network.phases[Phase.PREPARE].lost == 0


ECHO = """
import socket, sys
server = socket.create_server(("", 7))
print("ready", flush=True)
connection, _ = server.accept()
while data := connection.recv(4096):
    connection.sendall(data)
"""


@contextlib.contextmanager
def echo_in(namespace: str) -> Iterator[None]:
    """An echo service for one connection, on port 7 of a namespace."""
    words = ["ip", "netns", "exec", namespace, sys.executable, "-c", ECHO]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            server.kill()


async def test_a_connection_outlives_an_interrupted_link(ready: Pair) -> None:
    # A neighbour that has to be asked for anew has what is sent wait for it, rather than be lost.
    ip("-n", ready.near, "neigh", "replace", ready.address, "lladdr", FAR_MAC, "dev", "p0", "nud", "permanent")
    with echo_in(ready.far):
        async with await TcpSession.start(ready.address, 7, namespace=ready.near) as session:
            await asyncio.sleep(0.7)
            down = time.monotonic_ns()
            ip("-n", ready.far, "link", "set", "p0", "down")
            await asyncio.sleep(0.6)
            ip("-n", ready.far, "link", "set", "p0", "up")
            await asyncio.sleep(3)
            record = await session.stop()
    assert (record.ended, record.wrong) == (None, 0)
    assert record.echoed == record.sent
    assert record.retransmissions is not None
    assert record.retransmissions > 0
    assert 100e6 < record.stall_ns < 15_000e6
    assert abs(record.stall_at - down) < 3e9


async def test_a_stopped_prober_reports_itself_and_no_gap(ready: Pair, tmp_path: Path) -> None:
    async with await ProbeSession.start(ready.address, tmp_path / "probes", namespace=ready.near) as session:
        await asyncio.sleep(0.5)
        os.kill(session.pid, signal.SIGSTOP)
        await asyncio.sleep(0.6)
        os.kill(session.pid, signal.SIGCONT)
        await asyncio.sleep(0.5)
        network = attribute(await session.stop(), [])
    assert network.self_stall_max_ms is not None
    assert network.self_stall_max_ms > 400
    assert network.longest_gap_ms is not None
    assert network.longest_gap_ms < 300
    assert network.lost == 0


STARTER = """
import asyncio, pathlib, sys
from vferry.probe.session import ProbeSession
async def main():
    session = await ProbeSession.start("127.0.0.1", pathlib.Path(sys.argv[1]))
    print(session.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_nothing_remains_of_a_killed_starter_but_the_record(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path / "probes")], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        time.sleep(0.5)
        starter.kill()
    limit = time.monotonic() + 20
    while not gone(pid) and time.monotonic() < limit:
        time.sleep(0.05)
    assert gone(pid)
    assert len(ProbeRecord.load(tmp_path / "probes").sent) > 50


async def test_a_killed_prober_leaves_a_record(tmp_path: Path) -> None:
    async with await ProbeSession.start("127.0.0.1", tmp_path / "probes") as session:
        async for _ in session.lines():
            break
        os.kill(session.pid, signal.SIGKILL)
        await session.wait()
        assert len((await session.stop()).sent) > 50


@pytest.mark.parametrize(
    ("address", "options", "code"),
    [
        ("nonsense", {}, "probe-address"),
        ("203.0.113.1", {"method": "arp", "namespace": "{near}"}, "probe-address"),
        ("127.0.0.1", {"namespace": "no-such-namespace"}, "probe-namespace"),
        ("127.0.0.1", {"namespace": "../1/ns/net"}, "probe-usage"),
        ("127.0.0.1", {"rate": 0}, "probe-usage"),
        ("127.0.0.1", {"seconds": float("nan")}, "probe-usage"),
        ("127.0.0.1", {"method": "tcp"}, "probe-usage"),
    ],
)
async def test_what_cannot_be_probed_is_refused(
    pair: Pair, tmp_path: Path, address: str, options: dict[str, object], code: str
) -> None:
    if options.get("namespace") == "{near}":
        options = options | {"namespace": pair.near}
    with pytest.raises(Problem) as caught:
        await ProbeSession.start(address, tmp_path / "probes", **options)  # type: ignore[arg-type]
    assert caught.value.code == code


async def test_a_record_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        await ProbeSession.start("127.0.0.1", tmp_path / "no" / "folder")
    assert caught.value.code == "probe-record"


def test_the_command_prints_json() -> None:
    result = CliRunner().invoke(command, ["127.0.0.1", "--seconds", "0.5", "--rate", "100", "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["sent"] == 50
    assert printed["lost"] == 0


async def test_the_command_tells_of_the_connection(ready: Pair) -> None:
    words = [ready.address, "--from", f"netns:{ready.near}", "--tcp", "7", "--rate", "100"]
    with echo_in(ready.far):
        said = await asyncio.to_thread(vferry_probe, *words, "--seconds", "1")
    assert said.returncode == 0, said.stderr
    assert "records echoed" in said.stdout
    assert "port 7, survived" in said.stdout
    with echo_in(ready.far):
        said = await asyncio.to_thread(vferry_probe, *words, "--seconds", "1", "--json")
    printed = json.loads(said.stdout)
    assert printed["lost"] == 0
    assert printed["tcp"]["echoed"] == printed["tcp"]["sent"] > 10
    refused = await asyncio.to_thread(vferry_probe, *words)
    assert refused.returncode == Exit.UNDONE
    assert f"No TCP connection to {ready.address}, port 7, could be made: Connection refused" in refused.stderr


def vferry_probe(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "vferry", "probe", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_ctrl_c_ends_with_the_summary() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "import vferry.cli; vferry.cli.main()", "probe", "127.0.0.1", "--rate", "100"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    assert " sent, " in first
    assert "longest time without an answer" in rest
    assert process.returncode == 0
