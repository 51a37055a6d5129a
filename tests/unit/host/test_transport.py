"""URIs, and ssh as a real process that forwards a real socket."""

import asyncio
import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from vferry.controller.authority import Authority
from vferry.host.api import TakeInventory
from vferry.host.client import connect
from vferry.host.service_fake import empty_inventory, fake_agent
from vferry.host.transport import find_transport
from vferry.host.transport_ssh import LONGEST_SOCKET, SshTransport
from vferry.model.problem import Exit, Problem

FAKE_SSH = '''\
#!{python}
"""Stands in for ssh: writes down its arguments, then forwards the socket of -L to {socket}."""
import asyncio, os, pathlib, sys

async def copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def accept(reader, writer):
    try:
        there = await asyncio.open_unix_connection("{socket}")
    except OSError:
        print("channel 0: open failed: connect failed: No such file", file=sys.stderr, flush=True)
        writer.close()
        return
    await asyncio.gather(copy(reader, there[1]), copy(there[0], writer), return_exceptions=True)

async def main():
    log = pathlib.Path("{log}")
    with log.open("a") as file:
        print(os.getpid(), *sys.argv[1:], file=file)
    local = sys.argv[sys.argv.index("-L") + 1].split(":")[0]
    server = await asyncio.start_unix_server(accept, local)
    await server.serve_forever()

{before}
asyncio.run(main())
'''


class FakeSsh:
    """A program named ssh on PATH."""

    def __init__(self, directory: Path, socket: Path, before: str = "") -> None:
        directory.mkdir()
        self.log = directory / "log"
        self.program = directory / "ssh"
        text = FAKE_SSH.format(python=sys.executable, socket=socket, log=self.log, before=textwrap.dedent(before))
        self.program.write_text(text)
        self.program.chmod(0o755)

    def runs(self) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines()]


def alive(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


def use(ssh: FakeSsh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{ssh.program.parent}:{os.environ['PATH']}")


async def test_through_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = FakeSsh(tmp_path / "bin", tmp_path / "h" / "agent.sock")
    use(ssh, monkeypatch)
    async with fake_agent(tmp_path / "h", empty_inventory("host1")):
        async with connect("host1", "ssh://root@192.0.2.1:2222", directory=tmp_path / "run") as host:
            assert (await host.call(TakeInventory())).name == "host1"
            assert (await host.call(TakeInventory())).name == "host1"
            (directory,) = (tmp_path / "run").iterdir()
            assert directory.stat().st_mode & 0o777 == 0o700
            ((pid, *arguments),) = ssh.runs()
            assert alive(pid)
        assert not alive(pid)
        assert not directory.exists()
    assert arguments[-4:] == ["-p", "2222", "--", "root@192.0.2.1"]
    for option in ("-N", "BatchMode=yes", "ExitOnForwardFailure=yes", "ControlMaster=no", "ControlPath=none"):
        assert option in arguments
    assert f"{directory}/agent.sock:/run/vferry/agent.sock" in arguments


async def test_ssh_that_has_died_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = FakeSsh(tmp_path / "bin", tmp_path / "h" / "agent.sock")
    use(ssh, monkeypatch)
    async with (
        fake_agent(tmp_path / "h", empty_inventory("host1")),
        connect("host1", "ssh://host1", directory=tmp_path / "run") as host,
    ):
        await host.call(TakeInventory())
        pid = ssh.runs()[0][0]
        os.kill(int(pid), signal.SIGKILL)
        while alive(pid):
            await asyncio.sleep(0.01)
        assert (await host.call(TakeInventory())).name == "host1"
        assert len(ssh.runs()) == 2
    assert not any(alive(run[0]) for run in ssh.runs())


async def test_what_ssh_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = """
    print("Warning: Permanently added 'h' (ED25519) to the list of known hosts.", file=sys.stderr)
    print("root@192.0.2.1: Permission denied (publickey).", file=sys.stderr)
    sys.exit(255)
    """
    use(FakeSsh(tmp_path / "bin", tmp_path / "agent.sock", before), monkeypatch)
    async with connect("host1", "ssh://root@192.0.2.1", directory=tmp_path / "run") as host:
        with pytest.raises(Problem) as caught:
            await host.call(TakeInventory())
    problem = caught.value
    assert problem.code == "host-unreachable"
    assert problem.exit == Exit.REFUSED
    assert "ssh says: root@192.0.2.1: Permission denied (publickey)" in problem.message
    assert problem.remedy == "Make this work without a question: ssh root@192.0.2.1 true"


async def test_ssh_works_but_no_agent_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(FakeSsh(tmp_path / "bin", tmp_path / "agent.sock"), monkeypatch)
    async with connect("host1", "ssh://root@192.0.2.1", directory=tmp_path / "run") as host:
        with pytest.raises(Problem, match=r"no agent answers on its /run/vferry/agent\.sock") as caught:
            await host.call(TakeInventory())
    assert "systemctl start vferry-agent" in caught.value.remedy


async def test_no_ssh_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with connect("host1", "ssh://root@192.0.2.1", directory=tmp_path / "run") as host:
        with pytest.raises(Problem, match="there is no ssh on this machine"):
            await host.call(TakeInventory())


async def test_a_state_folder_too_deep_for_a_socket(tmp_path: Path) -> None:
    transport = find_transport("host1", "ssh://host1", None, tmp_path / ("x" * 100))
    assert isinstance(transport, SshTransport)
    connector = transport.connector()
    assert len(str(getattr(connector, "path", ""))) <= LONGEST_SOCKET
    await connector.close()
    await transport.aclose()


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "host1",
        "tcp://host1",
        "unix://run/agent.sock",
        "unix:agent.sock",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://-oProxyCommand=x@host1",
        "ssh://root:secret@host1",
        "ssh://root@host1/path",
        "ssh://host1:x",
        "https://user@host1:7443",
        "https://host1:99999",
    ],
)
def test_a_uri_that_is_none(uri: str) -> None:
    with pytest.raises(Problem, match="does not say how to reach an agent") as caught:
        find_transport("host1", uri, None)
    assert caught.value.code == "uri-invalid"


async def test_nobody_listens(tmp_path: Path) -> None:
    tls = Authority(tmp_path / "pki").files
    async with connect("host1", "https://127.0.0.1:1", tls) as host:
        with pytest.raises(Problem, match=r"nobody listens on 127\.0\.0\.1:1") as caught:
            await host.call(TakeInventory())
    assert caught.value.code == "host-unreachable"
    async with connect("host1", f"unix://{tmp_path}/no.sock") as host:
        with pytest.raises(Problem, match="there is no socket"):
            await host.call(TakeInventory())


async def test_https_without_a_certificate_of_ones_own() -> None:
    async with connect("host1", "https://127.0.0.1:1") as host:
        with pytest.raises(Problem) as caught:
            await host.call(TakeInventory())
    assert caught.value.code == "certificate-missing"
