"""The agent as a process: how it tells systemd, how it stops, and that there is one of it."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from vferry.host import service_run
from vferry.host.api import Done, Session, TakeInventory, Unplug
from vferry.host.claims import Claims
from vferry.host.client import connect
from vferry.host.configuration import EXAMPLE
from vferry.host.service_fake import FakeHandlers, empty_inventory
from vferry.host.service_run import lock
from vferry.model.problem import Problem

AGENT = """
import asyncio, sys, types
from pathlib import Path
from vferry.host import service_run
from vferry.host.service_fake import FakeHandlers, empty_inventory
from vferry.host.api import Unplug

class Handlers(FakeHandlers):
    def __init__(self, parts):
        configuration, claims, _directory = parts
        super().__init__(empty_inventory(configuration.name), claims)

    async def handle(self, operation, session):
        if isinstance(operation, Unplug):
            print("unplugging", flush=True)
            await asyncio.sleep(0.3)
        return await super().handle(operation, session)

sys.modules["vferry.host.handlers"] = types.SimpleNamespace(Handlers=Handlers)
sys.modules["vferry.host.handlers.parts"] = types.SimpleNamespace(Parts=lambda *given: given)
service_run.run(Path(sys.argv[1]), Path(sys.argv[2]))
"""


async def start(directory: Path) -> tuple[asyncio.subprocess.Process, list[bytes]]:
    """An agent that has said that it is ready, and what it has told systemd."""
    text = EXAMPLE.replace("/run/vferry/agent.sock", f"{directory}/run/agent.sock")
    (directory / "agent.toml").write_text(text)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(directory / "notify"))
        systemd.settimeout(0)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", AGENT, directory / "agent.toml", directory / "state"),
            env={**os.environ, "NOTIFY_SOCKET": str(directory / "notify")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(systemd, 100), 20)
    return process, [said]


async def test_it_is_ready_and_ends_what_it_is_at(tmp_path: Path) -> None:
    process, said = await start(tmp_path)
    asked_to_stop = False
    try:
        assert said == [b"READY=1"]
        assert (tmp_path / "run").stat().st_mode & 0o777 == 0o755
        async with connect("host1", f"unix://{tmp_path}/run/agent.sock", session=Session(operation="op1")) as host:
            assert (await host.call(TakeInventory())).name == "host1"
            call = asyncio.create_task(host.call(Unplug(guest="g1", alias="ua-vf")))
            assert process.stdout is not None
            assert await process.stdout.readline() == b"unplugging\n"
            process.send_signal(signal.SIGTERM)
            asked_to_stop = True
            assert await call == Done()
    finally:
        if not asked_to_stop:
            process.kill()
        _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert "INFO vferry.agent: unplug guest=g1 alias=ua-vf timeout_s=15.0: done, operation op1/1" in errors.decode()


async def test_broken_certificates_leave_the_socket_to_mend_them(tmp_path: Path) -> None:
    (tmp_path / "state" / "pki").mkdir(parents=True)
    for name in ("ca.crt", "host.crt", "host.key"):
        (tmp_path / "state" / "pki" / name).write_text("broken")
    process, said = await start(tmp_path)
    try:
        assert said == [b"READY=1"]
        async with connect("host1", f"unix://{tmp_path}/run/agent.sock") as host:
            assert (await host.call(TakeInventory())).name == "host1"
    finally:
        process.terminate()
        _, errors = await process.communicate()
    assert b"no TLS API, only the socket" in errors


def test_there_is_one_agent_for_a_state_directory(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(Problem) as caught, lock(tmp_path):
        pass
    assert caught.value.code == "agent-running"
    with lock(tmp_path):
        pass


async def test_what_others_undo_is_looked_after_until_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service_run, "FOLLOWS_EVERY_S", 0.01)
    handlers = FakeHandlers(empty_inventory("host1"), Claims(tmp_path, 2))
    started, stopping, looked = asyncio.Event(), asyncio.Event(), 0

    async def look() -> None:
        nonlocal looked
        looked += 1
        assert started.is_set(), "it is not looked at before all is as it was"
        if looked == 1:
            raise ValueError("a fault")
        if looked == 3:
            stopping.set()

    async def start() -> None:
        await asyncio.sleep(0.05)
        started.set()

    monkeypatch.setattr(handlers, "follow", look)
    starting = asyncio.create_task(start())
    await asyncio.wait_for(service_run.follow(handlers, starting, stopping), 20)
    assert looked == 3
    assert caplog.text.count("ValueError: a fault") == 1
    await starting
