"""A small QEMU guest whose memory can be compared, for tests of the gateway with the real thing."""

import itertools
import json
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MEMORY_MIB = 256
HOT_PAGES = 1000
HOT_AT = 32 << 20
CONTENT_AT = 64 << 20
PATIENCE_S = 60.0


def emulator() -> list[str]:
    """The start of QEMU's command line; empty where there is none."""
    if named := os.environ.get("VFERRY_TEST_QEMU"):
        return named.split()
    found = shutil.which("qemu-system-x86_64")
    return [found] if found else []


def kernel() -> bytes:
    """A multiboot kernel that counts in the first word of each hot page, for ever, about 20,000 pages a second."""
    load = 0x100000
    code = bytes.fromhex("bf") + struct.pack("<I", HOT_AT)  # mov edi, hot
    code += bytes.fromhex("b9") + struct.pack("<I", HOT_PAGES)  # mov ecx, pages
    code += bytes.fromhex("ff07 81c700100000 49 75f5")  # next: inc [edi]; add edi, 4096; dec ecx; jnz next
    code += bytes.fromhex("b9") + struct.pack("<I", 20_000_000) + bytes.fromhex("49 75fd")  # and wait
    code += bytes([0xEB, 256 - len(code) - 2])
    end = load + 32 + len(code)
    header = struct.pack(
        "<IIIIIIII", 0x1BADB002, 1 << 16, -(0x1BADB002 + (1 << 16)) % 2**32, load, load, end, end, load + 32
    )
    return header + code


class Machine:
    """A QEMU process with a QMP connection; it may be migrated from, or be waiting for a migration."""

    def __init__(self, folder: Path, name: str, content: Path, *, incoming: bool = False) -> None:
        self._folder = folder
        self._name = name
        image = folder / "kernel"
        image.write_bytes(kernel())
        here, there = socket.socketpair()
        arguments = ["-nodefaults", "-display", "none", "-M", "q35", "-accel", "tcg", "-m", str(MEMORY_MIB)]
        arguments += ["-device", f"loader,file={content},addr={CONTENT_AT},force-raw=on", "-kernel", str(image)]
        arguments += ["-chardev", f"socket,id=qmp,fd={there.fileno()}", "-qmp", "chardev:qmp"]
        arguments += ["-S", "-incoming", "defer"] if incoming else []
        self._process = subprocess.Popen([*emulator(), *arguments], pass_fds=[there.fileno()])
        there.close()
        here.settimeout(PATIENCE_S)
        self._socket = here
        self._qmp = here.makefile("rwb")
        self._qmp.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: object) -> Any:
        """Call QMP and return what it answers."""
        self._qmp.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self._qmp.flush()
        while True:
            answer = json.loads(self._qmp.readline())
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def prepare(self, channels: int, **parameters: object) -> None:
        """Set what both sides need: multifd with so many channels, or none for a plain stream."""
        if channels:
            capability = {"capability": "multifd", "state": True}
            self.ask("migrate-set-capabilities", capabilities=[capability])
            parameters["multifd-channels"] = channels
        self.ask("migrate-set-parameters", **parameters)

    def migrated(self) -> dict[str, Any]:
        """Wait for the end of the migration and return what QEMU says of it."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found: dict[str, Any] = self.ask("query-migrate")
            if found.get("status") in ("completed", "failed", "cancelled"):
                return found
            time.sleep(0.05)
        raise TimeoutError(found)

    def memory(self) -> bytes:
        """All of the guest's memory; the guest is to be stopped."""
        path = self._folder / f"{self._name}.memory"
        self.ask("pmemsave", val=0, size=MEMORY_MIB << 20, filename=str(path))
        try:
            return path.read_bytes()
        finally:
            path.unlink()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._qmp.close()
        self._socket.close()


def differing(one: bytes, other: bytes) -> Sequence[int]:
    """The first few pages that differ."""
    numbers = range(0, max(len(one), len(other)), 4096)
    return list(itertools.islice((at >> 12 for at in numbers if one[at : at + 4096] != other[at : at + 4096]), 10))
