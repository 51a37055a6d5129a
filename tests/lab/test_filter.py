"""Hosts whose bridges filter statefully: a connection goes on only where the filter of the destination knows it."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lab.operator import HOSTS, Scene, asked, other
from vferry.lab import peer

pytestmark = [pytest.mark.lab, pytest.mark.matrix]

PORT = "5001"
RULES = """
table bridge vferry_test
delete table bridge vferry_test
table bridge vferry_test {{
  chain forward {{
    type filter hook forward priority 0; policy drop;
    ether type {{ arp, 0x8035 }} accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert }} accept
    ip protocol icmp accept
    ct state established,related accept
    {opened}
  }}
}}
"""
OPENED = f"tcp dport {PORT} ct state new accept"
LOOSE = "/proc/sys/net/netfilter/nf_conntrack_tcp_loose"
SET = f"nft -f - && echo 0 > {LOOSE}"
UNSET = f"""nft delete table bridge vferry_test; echo 1 > {LOOSE}
modprobe -r nft_ct nf_conntrack_bridge nf_conntrack_netlink"""
ECHO = f"rm -f /run/echo; mkfifo /run/echo; exec nc -l -p {PORT} <>/run/echo >&0"
"""Sends back what comes."""
CLIENT = """
import socket, sys, time
def connect():
    for _ in range(30):  # until the guest listens
        try:
            return socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30)
        except ConnectionRefusedError:
            time.sleep(1)
with connect() as connection:
    answers = connection.makefile("rb")
    for line in iter(sys.stdin.buffer.readline, b""):
        connection.sendall(line)
        sys.stdout.write(answers.readline().decode())
        sys.stdout.flush()
"""
DROPPED = "dropped"
TRY = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)
except ConnectionRefusedError:
    print("refused")
except TimeoutError:
    print("dropped")
"""


class Client:
    """The peer, with one connection to the guest."""

    def __init__(self, address: str) -> None:
        self._process = subprocess.Popen(
            peer.command([sys.executable, "-c", CLIENT, address, PORT]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def echo(self, word: str) -> str:
        """What the guest sends back, nothing if it does not within half a minute."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def filtering(scene: Scene, opens: str) -> Iterator[None]:
    """Both bridges pass what is established; a connection to the guest may begin on one host only."""
    try:
        for host in HOSTS:
            rules = RULES.format(opened=OPENED if host == opens else "")
            done = scene.lab.run(host, ["sh", "-c", SET], input=rules)
            assert done.returncode == 0, done.stderr
        yield
    finally:
        for host in HOSTS:
            scene.run(host, UNSET)


def try_anew(scene: Scene) -> str:
    return scene.lab.peer([sys.executable, "-c", TRY, scene.address, PORT]).stdout.strip()


@pytest.mark.guest("guest2")
def test_an_established_connection_goes_on_where_none_may_begin(scene: Scene) -> None:
    scene.await_agent()
    home = scene.host
    there = other(home)
    with filtering(scene, opens=home), scene.busy(ECHO), contextlib.ExitStack() as ends:
        scene.lab.peer(["busybox", "ping", "-c", "1", "-W", "5", scene.address])
        client = Client(scene.address)
        ends.callback(client.end)
        assert client.echo("before") == "before"
        assert try_anew(scene) != DROPPED, "this filter lets connections begin"
        said = asked("check", scene.guest, there)
        assert said["possible"], said
        report = asked("migrate", scene.guest, there, "--no-probe")
        assert client.echo("after") == "after", report
        assert (report["status"], report["degraded"], report["notes"]) == ("completed", None, []), report
        assert report["connections"]["taken"] >= 1, report
        assert report["connections"]["refused"] == 0, report
        assert try_anew(scene) == DROPPED, "the destination's filter lets none begin"
        scene.assert_whole(there)
