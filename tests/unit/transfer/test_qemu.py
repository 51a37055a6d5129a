"""Real migrations between two QEMU processes through the gateways as processes, memory compared at the end.

Left out where there is no qemu-system-x86_64; VFERRY_TEST_QEMU may hold a command line that starts one.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vferry.transfer.codecs import available

from .machine import Machine, differing, emulator
from .test_process import Process, no_process_left

__all__ = ["no_process_left"]

pytestmark = pytest.mark.skipif(not emulator(), reason="no qemu-system-x86_64 here")
CONTENT_MIB = 64


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Memory that compresses, but not page by page: the same few kilobytes again and again, far apart."""
    chance = random.Random(0)  # noqa: S311
    words = [chance.randbytes(64) for _ in range(2000)]
    path = tmp_path_factory.mktemp("content") / "content"
    path.write_bytes(b"".join(chance.choice(words) for _ in range(CONTENT_MIB << 14)))
    return path


@pytest.fixture
def machines(tmp_path: Path, content: Path) -> Iterator[tuple[Machine, Machine]]:
    pair = Machine(tmp_path, "source", content), Machine(tmp_path, "destination", content, incoming=True)
    yield pair
    for machine in pair:
        machine.end()


def gateways(folder: Path, *options: str) -> tuple[Process, Process]:
    common = ("--insecure-plaintext", "--json")
    receive = Process("receive", "--listen", "127.0.0.1:0", "--connect", f"unix:{folder}/in.sock", *common)
    address = receive.ready["address"]
    send = Process("send", "--listen", f"unix:{folder}/out.sock", "--connect", address, *options, *common)
    return send, receive


CHOICES = [(codec, channels, 1) for codec in sorted({*available(), "auto"}) for channels in (4, 0)]


@pytest.mark.parametrize(("codec", "channels", "streams"), [*CHOICES, ("zstd", 0, 3)])
def test_memory_arrives_unchanged(
    tmp_path: Path, machines: tuple[Machine, Machine], codec: str, channels: int, streams: int
) -> None:
    source, destination = machines
    send, receive = gateways(tmp_path, "--codec", codec, "--streams", str(streams))
    destination.prepare(channels)
    destination.ask("migrate-incoming", uri=f"unix:{tmp_path}/in.sock")
    source.prepare(channels, **{"max-bandwidth": 60_000_000})
    time.sleep(1)  # the guest starts
    source.ask("migrate", uri=f"unix:{tmp_path}/out.sock")
    assert source.migrated()["status"] == "completed"
    assert destination.migrated()["status"] == "completed"
    assert not differing(source.memory(), destination.memory())
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


@pytest.mark.parametrize("victim", [0, 1])
def test_a_gateway_that_is_killed_leaves_the_guest_at_the_source(
    tmp_path: Path, machines: tuple[Machine, Machine], victim: int
) -> None:
    source, destination = machines
    processes = gateways(tmp_path, "--codec", "zstd")
    destination.prepare(2)
    destination.ask("migrate-incoming", uri=f"unix:{tmp_path}/in.sock")
    source.prepare(2, **{"max-bandwidth": 10_000_000})
    source.ask("migrate", uri=f"unix:{tmp_path}/out.sock")
    time.sleep(2)
    assert source.ask("query-migrate")["status"] == "active"
    processes[victim].kill()
    assert source.migrated()["status"] == "failed"
    assert source.ask("query-status")["status"] == "running"
