"""A held connection: the local process is not told that the wire is lost, until the gateway is stopped."""

import signal
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from vferry.cli.gateway import command
from vferry.model.problem import Problem

from .conftest import PLAIN, Authority, MakePair, Pair, wait_for
from .test_process import Process, destination, no_process_left, pair  # noqa: F401 - fixtures

SILENT_S = 0.3


@pytest.fixture
def lost() -> list[str]:
    return []


@pytest.fixture(params=["plaintext", "tls"])
def held(request: pytest.FixtureRequest, make_pair: MakePair, authority: Authority, lost: list[str]) -> Pair:
    if request.param == "plaintext":
        return make_pair(PLAIN, PLAIN, hold=lost.append)
    client, server = authority.client("source", "destination"), authority.server("destination", "source")
    return make_pair(client, server, hold=lost.append)


def says_nothing(near: socket.socket) -> bool:
    """Whether a read waits, rather than ending."""
    near.settimeout(SILENT_S)
    try:
        return near.recv(1) is None
    except TimeoutError:
        return True


@pytest.mark.parametrize("unread", [False, True])
@pytest.mark.parametrize("loss", ["wire", "server"])
def test_a_loss_is_told_but_not_to_the_local_process(held: Pair, lost: list[str], loss: str, *, unread: bool) -> None:
    near, far = held.open()
    with near, far:
        if unread:
            near.sendall(b"a call that is not answered")
        held.receive.stop() if loss == "wire" else far.close()
        wait_for(lambda: lost)
        assert says_nothing(near)
        for _ in range(50):
            near.sendall(bytes(1 << 16))  # more than any buffer: it is taken
        assert says_nothing(near)
        held.send.stop()
        near.settimeout(5)
        assert near.recv(1) == b""
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            near.sendall(b"x")
    assert lost == ["memory"]
    assert held.send.statistics.report(rates=False)["failed"] == 1


def test_what_came_before_the_loss_arrives(held: Pair, lost: list[str]) -> None:
    near, far = held.open()
    with near:
        far.sendall(b"the answer")
        far.close()
        wait_for(lambda: lost)
        assert near.recv(100) == b"the answer"
        assert says_nothing(near)


def test_a_local_process_that_ends_first_ends_it_cleanly(held: Pair, lost: list[str]) -> None:
    near, far = held.open()
    with far:
        near.sendall(b"bye")
        near.close()
        assert far.recv(3, socket.MSG_WAITALL) == b"bye"
        assert far.recv(1) == b""
    wait_for(lambda: not held.send._connections)
    assert lost == []
    assert held.log == []


def test_a_local_process_that_gives_up_is_let_go(held: Pair, lost: list[str]) -> None:
    near, far = held.open()
    with far:
        held.receive.stop()
        wait_for(lambda: lost)
        near.close()
        wait_for(lambda: not held.send._connections)


def test_the_process_says_so_and_holds_until_its_end(
    tmp_path: Path,
    authority: Authority,
    destination: socket.socket,  # noqa: F811
) -> None:
    send, receive = pair(tmp_path, authority, sending=("--hold", "memory"))
    with socket.socket(socket.AF_UNIX) as near:
        near.connect(str(tmp_path / "near.sock"))
        far, _ = destination.accept()
        with far:
            near.sendall(b"?")
            assert far.recv(1) == b"?"
            receive.kill()
            assert send.event(event="lost") == {"event": "lost", "service": "memory"}
            assert says_nothing(near)
        code, events, _ = send.end(signal.SIGTERM)
        near.settimeout(5)
        assert near.recv(1) == b""
    assert code == 0
    assert events[-1]["event"] == "end"


def test_only_a_service_that_is_there_can_be_held() -> None:
    arguments = ["send", "--listen", "unix:/a", "--connect", "h:1", "--insecure-plaintext", "--hold", "control"]
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, Problem)
    assert result.exception.code == "service-unknown"
