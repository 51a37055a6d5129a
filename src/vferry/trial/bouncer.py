"""The traffic: packets that DPDK's testpmd sends to and fro between two virtio NICs, as fast as they are forwarded."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vferry.host.sysfs import read_file
from vferry.model.problem import Exit, Problem
from vferry.trial.ends import End, Ends, give_cpu
from vferry.trial.namespace import run
from vferry.trial.process import Process
from vferry.trial.started import Started

PROGRAM = "dpdk-testpmd"
BURST = 32
WORKERS = ("dpdk-worker", "rte-worker", "lcore-worker")
"""What DPDK calls its threads, by its version."""
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
TAP_MACS = ("fe:00:00:00:00:01", "fe:00:00:00:00:02")
ADDRESSES = ("198.18.0.1", "198.18.0.2")
"""For benches (RFC 2544, C.2.2)."""
PORT = 9
"""Of UDP: what is sent there is thrown away."""
MEMORY_MIB = 256
READY_S, GLANCE_S = 60.0, 0.3
BUFFERS = 32_768
ANSWER = 1 << 16


def missing() -> str:
    """What this machine lacks for it, in words; empty if nothing."""
    return "" if shutil.which(PROGRAM) else f"there is no {PROGRAM}: apt install dpdk-dev"


class Bouncer(Started):
    """Two NICs on the CPU `cpu`, plugged at `ends`; what the kernel does for them it does on the CPU `forwarding`.

    What comes in at one goes out there again with its addresses swapped, so that a path carries the same flow both
    ways, and as many packets as were sent at first. Problem ``bench-no-traffic``.
    """

    def __init__(self, folder: Path, cpu: int, forwarding: int, ends: Ends, inside: Sequence[str]) -> None:
        super().__init__()
        self._folder, self._cpu, self._forwarding = folder, cpu, forwarding
        self._ends, self._inside = ends, inside
        self._process: Process

    def _start(self) -> None:
        self._folder.mkdir()
        memory = ["--in-memory", "-m", str(MEMORY_MIB), "--single-file-segments", "--no-pci"]
        nics = [
            f"--vdev=net_virtio_user{at},mac={mac},queue_size=1024,{_backend(end)}"
            for at, (mac, end) in enumerate(zip(MACS, self._ends, strict=True))
        ]
        packets = [f"--tx-ip={','.join(ADDRESSES)}", f"--tx-udp={PORT}"]
        packets += [f"--eth-peer={at},{mac}" for at, mac in enumerate(reversed(MACS))]
        traffic = ["--interactive", "--forward-mode=5tswap", "--port-topology=loop", f"--total-num-mbufs={BUFFERS}"]
        argv = [PROGRAM, f"--lcores=0@{self._cpu},1@{self._cpu}", *memory, *nics, "--", *traffic, *packets]
        environment = ["env", f"RUNTIME_DIRECTORY={self._folder}"]
        started = Process([*self._inside, *environment, *argv], stdin=subprocess.PIPE)
        self._process = self._stack.enter_context(started)
        self._await_ready()
        self._tell_kernel()

    def settle(self) -> None:
        """Waits until packets go round: what is sent before the path is whole is lost. Problem ``bench-no-traffic``."""
        ends = time.monotonic() + READY_S
        while time.monotonic() < ends:
            self.send(64, 1, 1)
            time.sleep(GLANCE_S)
            before = self.received()
            time.sleep(GLANCE_S)
            round_and_round = self.received() > before
            self.stop()
            if round_and_round:
                return
        raise Problem("bench-no-traffic", "No packet comes back", "Run it again, with less beside it", exit=Exit.UNDONE)

    def send(self, size: int, burst: int, bursts: int) -> None:
        """Has `bursts` bursts of `burst` packets of `size` bytes go round from each NIC, until `stop`."""
        self._say(f"set burst {burst}", f"set txpkts {size}", f"start tx_first {bursts}")

    def stop(self) -> None:
        """Ends the traffic; what was on its way is gone."""
        self._say("stop")

    def received(self) -> int:
        """The packets that have come in at both NICs so far."""
        return sum(int(self._ask(f"/ethdev/stats,{port}")["ipackets"]) for port in range(len(MACS)))

    def cpu_s(self) -> float:
        """The CPU time so far of the threads that send and receive, in seconds."""
        return sum(self._process.cpu_s(thread) for thread in self._threads(*WORKERS))

    def _tell_kernel(self) -> None:
        """A tap is not to have the MAC of its NIC: a bridge would take that for its own."""
        for end, mac in zip(self._ends, TAP_MACS, strict=True):
            if end.tap:
                run([*self._inside, "ip", "link", "set", end.tap, "address", mac])
        give_cpu(self._process.pid, self._forwarding)

    def _threads(self, *names: str) -> list[int]:
        tasks = Path(f"/proc/{self._process.pid}/task").iterdir()
        return [int(task.name) for task in tasks if read_file(task / "comm").startswith(names)]

    def _await_ready(self) -> None:
        ends = time.monotonic() + READY_S
        while time.monotonic() < ends:
            try:
                if all(self._ask(f"/ethdev/link_status,{port}")["status"] == "UP" for port in range(len(MACS))):
                    return
            except (OSError, ValueError, LookupError, TypeError):
                pass
            if not self._process.running():
                break
            time.sleep(0.1)
        raise Problem(
            "bench-no-traffic",
            f"{PROGRAM} does not come up: {self._process.errors()[-500:]}",
            "Install dpdk-dev, librte-net-virtio and librte-mempool-ring; run it as root",
            exit=Exit.UNDONE,
        )

    def _ask(self, question: str) -> Any:
        """DPDK's telemetry: https://doc.dpdk.org/guides/howto/telemetry.html."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(5)
            sock.connect(str(self._folder / "dpdk/rte/dpdk_telemetry.v2"))
            sock.recv(ANSWER)
            sock.send(question.encode())
            return json.loads(sock.recv(ANSWER))[question.partition(",")[0]]

    def _say(self, *lines: str) -> None:
        self._process.tell("".join(f"{line}\n" for line in lines))


def _backend(end: End) -> str:
    """As virtio-user takes it."""
    return f"path={end.path},iface={end.tap}" if end.tap else f"path={end.path},server=1"
