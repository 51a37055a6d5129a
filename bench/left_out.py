"""What a migration could leave out of a guest's memory altogether: three ways, measured on real guests.

    python bench/left_out.py [--memory 1024] [--results left-out.json]

Two guests with Debian 13 from one image (that of the lab's hosts, built if it is not there) boot in QEMU, and work:
they read all their programs, compile Python's library, and hold a third of their memory for a while. After each
piece of work the memory of the first is compared, page by page of 4 KiB:

free      pages with content that the guest itself has no use for: its balloon takes what it has free, but for a
          reserve, and gives it back at once
earlier   pages that are the same, wherever they are, as at the end of the piece of work before: what a host that the
          guest has left then would have kept
another   pages that are the same, wherever they are, in the second guest

Shares are of the pages that are not zero. As root; needs no KVM and takes about a quarter of an hour without.
"""

import argparse
import hashlib
import json
import mmap
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from vferry.lab import archive, base, boot
from vferry.lab.release import DEBIAN13
from vferry.model.memory import reclaimable
from vferry.trial.guest import accelerator
from vferry.trial.monitor import Monitor

MIB = 1 << 20
PAGE = 4096
ZERO = bytes(PAGE)
PATIENCE_S = 1200.0
END = "\nthat was it"
WORK = {
    "booted": ":",
    "read its programs": "cat $(find /usr -type f) > /dev/null",
    "compiled": "python3 -m compileall -q -f /usr/lib/python3 /usr/lib/python3.13",
    "held a third": "python3 -c 'import os; held = [os.urandom(1 << 20) for _ in range({third})]'",
    "read once more": "cat $(find /usr/lib /usr/share -type f) > /dev/null",
}
SECOND = ("booted", "read its programs", "compiled")
"""What the second guest does."""
INIT = """#!/bin/busybox sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in /lib/mods/*/*; do case $module in *bonding*) ;; *) insmod $module ;; esac; done
exec < /dev/ttyS0 > /dev/ttyS0 2>&1
until [ -e /dev/vda ]; do usleep 50000; done
mount -t ext4 /dev/vda /mnt
for each in dev proc sys; do mount --move /$each /mnt/$each; done
exec switch_root /mnt /bin/bash --norc
"""


class Guest:
    """One QEMU with its memory in a file that both see."""

    def __init__(self, folder: Path, name: str, memory: int, files: list[str], *, incoming: bool = False) -> None:
        """One that is `incoming` waits for another one's migration."""
        self.memory = memory
        self.ram = folder / f"{name}.ram"
        consoles = {kind: folder / f"{name}.{kind}" for kind in ("serial", "qmp")}
        sockets = {kind: f"unix:{path},server=on,wait=off" for kind, path in consoles.items()}
        self._process = subprocess.Popen([
            *("qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-user-config", "-no-reboot", *accelerator()),
            *("-machine", "q35,memory-backend=ram", "-m", f"{memory}M"),
            *("-object", f"memory-backend-file,id=ram,size={memory}M,mem-path={self.ram},share=on"),
            *("-append", "console=ttyS0 quiet mitigations=off panic=-1", *files, "-snapshot"),
            *("-device", "virtio-balloon-pci,id=balloon", "-device", "virtio-blk-pci,drive=disk"),
            *("-serial", sockets["serial"], "-qmp", sockets["qmp"], *(("-incoming", "defer") if incoming else ())),
        ])  # fmt: skip
        self._serial = _connected(consoles["serial"])
        self.monitor = Monitor(_connected(consoles["qmp"]))
        with self.ram.open("rb") as file:
            self._ram = mmap.mmap(file.fileno(), memory * MIB, access=mmap.ACCESS_READ)
        if not incoming:
            self.run("stty -echo; export PATH=/usr/sbin:/usr/bin")

    @property
    def place(self) -> str:
        """Where its memory is, as ``PID:START-END``."""
        maps = Path(f"/proc/{self._process.pid}/maps").read_text().splitlines()
        return f"{self._process.pid}:{next(line.split()[0] for line in maps if line.endswith(str(self.ram)))}"

    def run(self, command: str) -> str:
        """What a command printed."""
        self._serial.sendall(f"{command}; echo; echo that 'was it'\n".encode())
        told, until = b"", time.monotonic() + PATIENCE_S
        while END.encode() not in told:
            if time.monotonic() > until:
                raise TimeoutError(told.decode(errors="replace")[-500:])
            data = self._serial.recv(65536)
            if not data:
                raise EOFError(told.decode(errors="replace")[-500:])
            told += data
        return told.decode(errors="replace").rsplit(END, 1)[0]

    def pages(self) -> list[bytes]:
        """A hash of each page that is not zero."""
        places = range(0, self.memory * MIB, PAGE)
        views = (self._ram[place : place + PAGE] for place in places)
        return [hashlib.blake2b(page, digest_size=16).digest() for page in views if page != ZERO]

    def squeeze(self) -> int:
        """MiB that its balloon took and gave back: what was free, but for the reserve."""
        told = self.run("cat /proc/meminfo")
        free = int(next(line.split()[1] for line in told.splitlines() if line.startswith("MemFree"))) // 1024
        take = reclaimable(self.memory * MIB, free * MIB) // MIB
        self._inflate(self.memory - take)
        self._inflate(self.memory)
        return take

    def _inflate(self, target: int) -> None:
        self.monitor.ask("balloon", value=target * MIB)
        for _ in range(600):
            if self.monitor.ask("query-balloon")["actual"] == target * MIB:
                return
            time.sleep(0.1)
        raise TimeoutError(f"the balloon does not get to {target} MiB")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self.ram.unlink()


def main() -> None:
    """Boot both, let them work, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=int, default=1024, help="MiB of each guest")
    parser.add_argument("--results", type=Path, default=Path("left-out.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        files = system(folder)
        guests = [Guest(folder, each, options.memory, files) for each in ("first", "second")]
        try:
            rows = measure(guests[0], guests[1], options.memory)
        finally:
            for guest in guests:
                guest.end()
    options.results.write_text(json.dumps(rows, indent=1) + "\n")


def measure(first: Guest, second: Guest, memory: int) -> list[dict[str, Any]]:
    """A row for each piece of work, in shares of the pages that are not zero."""
    rows: list[dict[str, Any]] = []
    before: set[bytes] = set()
    for work, command in WORK.items():
        started = time.monotonic()
        first.run(command.format(third=memory // 3))
        if work in SECOND:
            second.run(command)
        pages, others = first.pages(), set(second.pages())
        taken = first.squeeze()
        left = first.pages()
        row = {
            "work": work,
            "content_mib": len(pages) * PAGE // MIB,
            "balloon_mib": taken,
            "free": 1 - len(left) / len(pages),
            "earlier": sum(page in before for page in pages) / len(pages),
            "another": sum(page in others for page in pages) / len(pages),
            "itself": 1 - len(set(pages)) / len(pages),
            "seconds": round(time.monotonic() - started),
        }
        rows.append(row)
        print(json.dumps({name: round(v, 3) if isinstance(v, float) else v for name, v in row.items()}), flush=True)
        before = set(left)
    return rows


def system(folder: Path) -> list[str]:
    """QEMU's options for the kernel, an initial RAM file system that mounts the image, and the image."""
    root = base.ensure(DEBIAN13)
    tree = boot.skeleton(root / "root", folder / "tree")
    archive.copy_guest_modules(root / "root", tree)
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    archive.pack(tree, folder / "first.cpio")
    shutil.rmtree(tree)
    kernel = boot.ensure(DEBIAN13, root) / "vmlinux"
    image = f"file={root / 'host.img'},format=raw,if=none,id=disk"
    return ["-kernel", str(kernel), "-initrd", str(folder / "first.cpio"), "-drive", image]


def _connected(path: Path) -> socket.socket:
    for _ in range(300):
        try:
            found = socket.socket(socket.AF_UNIX)
            found.connect(str(path))
        except OSError:
            time.sleep(0.1)
        else:
            found.settimeout(PATIENCE_S)
            return found
    raise TimeoutError(str(path))


if __name__ == "__main__":
    if os.geteuid():
        sys.exit("left_out.py: must be root")
    main()
