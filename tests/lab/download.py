"""A long download from a guest over one TCP connection: known bytes, for as long as is wanted."""

import contextlib
import hashlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from lab.operator import Scene
from vferry.lab import peer

PORT = "7001"
FIRST, LAST = 100_000, 106_000
ENOUGH = "touch /tmp/enough"
"""Has the guest end it."""
SENDER = f"""rm -f /tmp/enough
seq {FIRST} {LAST} > /tmp/block
exec nc -l -p {PORT} -e sh -c 'n=0
until [ -e /tmp/enough ] || [ $n = 600 ]; do n=$((n+1)); echo block $n; cat /tmp/block; usleep 300000; done
echo end $n'"""
"""Numbered blocks of 41 KiB, a few of them a second; 24 MiB at most."""
BLOCK = "".join(f"{number}\n" for number in range(FIRST, LAST + 1)).encode()
BEGIN_S, END_S = 60.0, 60.0


class Download:
    """What the peer has received so far is in `path`."""

    def __init__(self, scene: Scene, path: Path) -> None:
        self._scene, self._path = scene, path

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Begun, and ended by the guest afterwards."""
        with self._scene.busy(SENDER):
            client = self._begin()
            try:
                yield
                self._scene.tell(ENOUGH)
                client.wait(END_S)
            finally:
                client.kill()
                client.communicate()

    def _begin(self) -> subprocess.Popen[bytes]:
        """A client, once something has come: the guest may not listen yet."""
        until = time.monotonic() + BEGIN_S
        while True:
            with self._path.open("wb") as file:
                argv = peer.command(["busybox", "nc", self._scene.address, PORT])
                client = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=file)
            while not self.received and client.poll() is None and time.monotonic() < until:
                time.sleep(0.1)
            if self.received:
                return client
            client.kill()
            client.communicate()
            assert time.monotonic() < until, f"{self._scene.guest} sends nothing"
            time.sleep(0.5)

    @property
    def received(self) -> int:
        """Bytes so far."""
        return self._path.stat().st_size

    def assert_whole(self) -> None:
        """Every byte is the one that was sent."""
        data = self._path.read_bytes()
        blocks = int(data.splitlines()[-1].removeprefix(b"end "))
        sent = hashlib.sha256()
        for number in range(1, blocks + 1):
            sent.update(b"block %d\n" % number + BLOCK)
        sent.update(b"end %d\n" % blocks)
        assert hashlib.sha256(data).hexdigest() == sent.hexdigest(), f"{len(data)} bytes, {blocks} blocks"
