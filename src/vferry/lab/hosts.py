"""The emulated hosts as processes of this machine: starting them and waiting until they answer."""

import os
import selectors
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from vferry.lab import net, outer, peer, places, processes, qemu, reach
from vferry.lab.layers import Layers
from vferry.lab.topology import GUESTS, HOSTS, NETWORKS, Host
from vferry.model.problem import Exit, Problem

READY = b"vferry-lab: ready"
FAILED = b"vferry-lab: failed"
BOOT_BOUND = 300.0  # seconds; a boot takes about 60 on 2 cores without KVM

# Runs the emulator out of the built root: the distribution's own may be too old for SR-IOV.
ENTER = """set -e; root=$1 base=$2 product=$3 lab=$4 run=$5 kept=$6 disks=$7; shift 7
mount --rbind /dev "$root/dev"
mount -t tmpfs mnt "$root/mnt"
for name in base product lab run kept; do mkdir "$root/mnt/$name"; done
mount --bind "$base" "$root/mnt/base"; mount --bind "$product" "$root/mnt/product"
mount --bind "$lab" "$root/mnt/lab"; mount --bind "$run" "$root/mnt/run"; mount --bind "$kept" "$root/mnt/kept"
for disk in $disks; do
  [ -e "$lab/${disk%=*}" ] || chroot "$root" qemu-img create -q -f qcow2 -F raw -b "${disk#*=}" "/mnt/lab/${disk%=*}"
done
exec chroot "$root" "$@"
"""


def pids(host: Host) -> list[int]:
    """Processes that emulate `host`: none or one."""
    return processes.find(qemu.marker(host))


def running() -> list[Host]:
    return [host for host in HOSTS if pids(host)]


def cpu_flags() -> set[str]:
    """Flags of this machine's CPU."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split(":", 1)[1].split())
    return set()


def written(host: Host) -> list[str]:
    """Files that a host leaves in the lab's folder, but for its logs."""
    return [*qemu.overlays(host), f"{host.name}.state"]


def start(host: Host, layers: Layers, lab: Path, kept: Path | None = None) -> None:
    """Starts a host; `wait` says when it answers. With `kept`, it waits to be restored from that folder."""
    for name in ("console", "qmp", "ssh"):
        (places.RUN / f"{host.name}.{name}").unlink(missing_ok=True)
    setup, standby = layers.setup, layers.setup.standby
    data, mgmt = (net.plug(network, host, standby) for network in NETWORKS)
    taps = (data[0], *mgmt, *data[1:])
    try:
        key = reach.public_key(lab)
        argv = qemu.command(host, qemu.Taps(*taps), GUESTS, key, cpu_flags(), restore=kept is not None, setup=setup)
        own = layers.of(host)
        binds = (f"{layers.ground}/root", own.base, own.product, *map(str, (lab, places.RUN, kept or lab)))
        disks = " ".join(f"{name}={backing}" for name, backing in qemu.overlays(host).items())
        enter = ["unshare", "-m", "sh", "-c", ENTER, "enter", *binds, disks]
        outer.launch([*enter, *argv], lab / f"{host.name}.log", pass_fds=taps)
        if standby.lacp:
            peer.start_lacp(NETWORKS[0], host, standby)
    finally:
        for tap in taps:
            os.close(tap)


def wait(hosts: Sequence[Host], folder: Path, bound: float = BOOT_BOUND) -> None:
    """Waits until each host says on its console that it is ready; raises `Problem` after `bound` seconds."""
    start_time, waiting = time.monotonic(), {host.name: host for host in hosts}
    with selectors.DefaultSelector() as selector:
        for host in hosts:
            selector.register(_console(host, folder), selectors.EVENT_READ, (host, bytearray()))
        told = 0.0
        while waiting:
            elapsed = time.monotonic() - start_time
            if elapsed - told >= 10:
                told = elapsed
                outer.say(f"waiting for {' and '.join(waiting)} to boot: {elapsed:.0f} s")
            if elapsed > bound:
                raise failure(next(iter(waiting.values())), folder, f"did not boot within {bound:.0f} s")
            for entry, _ in selector.select(timeout=1):
                host, seen = entry.data
                if _read(entry.fileobj, seen, host, folder):
                    outer.say(f"{host.name} is ready after {time.monotonic() - start_time:.0f} s")
                    selector.unregister(entry.fileobj)
                    entry.fileobj.close()  # type: ignore[union-attr]
                    del waiting[host.name]


def _console(host: Host, folder: Path) -> socket.socket:
    """Connects to a host's console, as soon as its emulator has made it."""
    path, deadline = places.RUN / f"{host.name}.console", time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            console = socket.socket(socket.AF_UNIX)
            console.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            console.close()
            time.sleep(0.05)
        else:
            return console
    raise failure(host, folder, "was not started: its emulator made no console")


def _read(console: object, seen: bytearray, host: Host, folder: Path) -> bool:
    """Takes in what a host printed; True once it is ready."""
    assert isinstance(console, socket.socket)  # noqa: S101 - for the type checker
    data = console.recv(65536)
    seen += data
    if not data:
        raise failure(host, folder, "ended while it booted")
    if FAILED in seen:
        raise failure(host, folder, "failed while it booted")
    return READY in seen


def failure(host: Host, folder: Path, what: str) -> Problem:
    """A problem that quotes the end of a host's console and of its emulator's messages."""
    console, log = places.console(host.name), folder / f"{host.name}.log"
    tail = [line for file in (console, log) if file.exists() for line in _tail(file)]
    return Problem(
        "lab-host-failed",
        f"{host.name} {what}. Its last lines:\n" + "\n".join(tail) + f"\n{console}",
        "Read its log",
        exit=Exit.UNDONE,
        log=str(console),
    )


def _tail(file: Path, lines: int = 12) -> list[str]:
    return file.read_text(errors="replace").splitlines()[-lines:]
