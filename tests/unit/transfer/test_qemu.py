"""Real migrations between two QEMU processes through the gateways as processes, memory compared at the end.

Left out where there is no qemu-system-x86_64; VFERRY_TEST_QEMU may hold a command line that starts one. The whole
matrix of codecs takes some minutes (`make test-lab`), what stands for it half a minute.
"""

import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from vferry.transfer.codecs import available
from vferry.transfer.multifd import PAGE_BYTES
from vferry.trial.content import MIB, Layout, Memory
from vferry.trial.guest import Guest
from vferry.trial.modes import Mode

from .mapped import mapped
from .test_process import Process, no_process_left

__all__ = ["no_process_left"]

NAMED = os.environ.get("VFERRY_TEST_QEMU", "qemu-system-x86_64").split()
pytestmark = pytest.mark.skipif(not shutil.which(NAMED[0]), reason="no qemu-system-x86_64 here")
PLACES = Layout(128 * MIB, 32 * MIB, 64 * MIB, 32 * MIB, 8 * MIB)
RATE = 10_000
PATIENCE_S, LONGEST_S = 60.0, 300.0
Pair = tuple[Guest, Guest]


@pytest.fixture(scope="module")
def content() -> bytes:
    """Memory that compresses, but not page by page: the same few kilobytes again and again, far apart."""
    chance = random.Random(0)  # noqa: S311
    words = [chance.randbytes(64) for _ in range(500)]
    return b"".join(chance.choice(words) for _ in range(PLACES.content >> 6))


@pytest.fixture
def guests(content: bytes) -> Iterator[Pair]:
    with ExitStack() as stack:
        memories = [Memory("guest", PLACES.size) for _ in range(2)]
        for memory in memories:
            stack.callback(memory.close)
        memories[0].view[PLACES.content_at : PLACES.content_at + PLACES.content] = content
        work = PLACES.work(RATE)
        source, destination = (
            stack.enter_context(Guest(NAMED, memory, work, incoming=nth == 1)) for nth, memory in enumerate(memories)
        )
        yield source, destination


def gateways(folder: Path, *options: str, receiving: tuple[str, ...] = ()) -> tuple[Process, Process]:
    common = ("--insecure-plaintext", "--json")
    into = f"unix:{folder}/in.sock"
    receive = Process("receive", "--listen", "127.0.0.1:0", "--connect", into, *receiving, *common)
    address = receive.ready["address"]
    send = Process("send", "--listen", f"unix:{folder}/out.sock", "--connect", address, *options, *common)
    return send, receive


def begin(folder: Path, guests: Pair, channels: int, bytes_a_s: int) -> None:
    """Start to migrate: with so many channels of multifd, or none for a plain stream."""
    source, destination = guests
    mode = Mode(("multifd",), {"multifd-channels": channels}) if channels else Mode()
    destination.prepare(mode)
    destination.monitor.ask("migrate-incoming", uri=f"unix:{folder}/in.sock")
    source.prepare(mode, **{"max-bandwidth": bytes_a_s})
    source.await_ready()
    source.monitor.ask("migrate", uri=f"unix:{folder}/out.sock")


def waits(guest: Guest) -> str:
    """What each thread of a QEMU is in: its name, and the kernel's function and call that it waits in."""
    tasks = Path(f"/proc/{guest.process.pid}/task").iterdir()
    return "\n".join(
        " ".join((task / name).read_text().strip() for name in ("comm", "wchan", "syscall")) for task in tasks
    )


def ended(guest: Guest, *others: Guest) -> dict[str, Any]:
    """Wait for the end of the migration, as long as it gets on, and return what the guest's QEMU says of it."""
    sent, deadline, latest = -1, 0.0, time.monotonic() + LONGEST_S
    while True:
        found: dict[str, Any] = guest.monitor.ask("query-migrate")
        if found.get("status") in ("completed", "failed", "cancelled"):
            return found
        now = time.monotonic()
        if (so_far := found.get("ram", {}).get("transferred", 0)) != sent:
            sent, deadline = so_far, min(now + PATIENCE_S, latest)
        if now > deadline:
            raise TimeoutError("\n".join([str(found), *map(waits, (guest, *others)), Process.stacks()]))
        time.sleep(0.05)


ALL = [(codec, channels, 1) for codec in sorted({*available(), "auto"}) for channels in (4, 0)]
CHOSEN = [("auto", 4, 1), ("zstd", 4, 1), ("zstd", 0, 3)]
REST = [pytest.param(*choice, marks=pytest.mark.matrix) for choice in ALL if choice not in CHOSEN]


@pytest.mark.parametrize(("codec", "channels", "streams"), [*CHOSEN, *REST])
def test_memory_arrives_unchanged(tmp_path: Path, guests: Pair, codec: str, channels: int, streams: int) -> None:
    source, destination = guests
    send, receive = gateways(tmp_path, "--codec", codec, "--streams", str(streams))
    begin(tmp_path, guests, channels, 40_000_000)
    assert ended(source, destination)["status"] == "completed"
    assert ended(destination)["status"] == "completed"
    assert source.memory.differing(destination.memory) == 0
    (_, sent, _), (_, received, errors) = send.end(), receive.end()
    assert "broken" not in errors
    assert sent[-1]["sent_bytes"] == received[-1]["received_bytes"]
    if codec != "none":
        found = sent[-1]["compression"]
        assert found == received[-1]["compression"]
        if channels:
            assert found["pages"] > 16_000  # before 9.0, zero pages are not among them
            assert codec == "auto" or found["delta_pages"] > 100
        if codec != "auto":
            assert found["ratio"] > 1.3


def test_what_is_resident_is_not_sent(tmp_path: Path, guests: Pair, content: bytes) -> None:
    source, destination = guests
    pages = [content[at : at + PAGE_BYTES] for at in range(0, len(content), PAGE_BYTES)]
    with mapped(*pages) as place:
        where = f"{place.pid}:{place.addresses.start:x}-{place.addresses.stop:x}"
        send, receive = gateways(tmp_path, "--codec", "zstd", receiving=("--resident", where))
    begin(tmp_path, guests, 4, 40_000_000)
    assert ended(source, destination)["status"] == "completed"
    assert ended(destination)["status"] == "completed"
    assert source.memory.differing(destination.memory) == 0
    (_, sent, _), (_, received, errors) = send.end(), receive.end()
    assert "broken" not in errors
    found = sent[-1]["compression"]
    assert found == received[-1]["compression"]
    quiet = PLACES.content - PLACES.hot
    assert found["resident_pages"] >= quiet / PAGE_BYTES


@pytest.mark.parametrize("victim", [0, 1])
def test_a_gateway_that_is_killed_leaves_the_guest_at_the_source(tmp_path: Path, guests: Pair, victim: int) -> None:
    source, _ = guests
    processes = gateways(tmp_path, "--codec", "zstd")
    begin(tmp_path, guests, 2, 10_000_000)
    time.sleep(1)
    assert source.monitor.ask("query-migrate")["status"] == "active"
    processes[victim].kill()
    assert ended(source)["status"] == "failed"
    assert source.monitor.ask("query-status")["status"] == "running"
