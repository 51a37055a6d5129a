"""A disk that is full when a test says so: a small tmpfs, in a mount namespace that goes with its process."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vferry.trial.process import Process

needs_a_small_disk = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "mount", "setpriv"))),
    reason="mounting a file system needs root, unshare, mount and setpriv",
)

BALLAST = "ballast"


class SmallDisk:
    """Of 4 MiB, at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def fill(self, leave: int = 0) -> None:
        """Leaves so many bytes, or not one."""
        with (self.root / BALLAST).open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                file.truncate(file.tell() - leave)

    def empty(self) -> None:
        """Gives the room back."""
        (self.root / BALLAST).unlink(missing_ok=True)


@contextmanager
def small_disk() -> Iterator[SmallDisk]:
    """Seen through the process that has it mounted: nothing but what follows links by itself (SQLite) can tell."""
    mounted = "mount -t tmpfs -o size=4M none /mnt && echo mounted && exec sleep infinity"
    with Process(["unshare", "--mount", "sh", "-c", mounted], out=subprocess.PIPE) as process:
        assert process.output.readline() == b"mounted\n"
        yield SmallDisk(Path(f"/proc/{process.pid}/root/mnt"))


def on_a_small_disk(command: list[str]) -> list[str]:
    """The command line that runs a command with a small disk of its own at /mnt."""
    mounted = 'mount -t tmpfs -o size=4M none /mnt && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mounted, "sh", *command]
