"""The layer of booted hosts: memory and disks when the first guests answered; restoring takes seconds."""

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from vferry.lab import cache, hosts, outer, places, product, qemu
from vferry.lab.qmp import Monitor
from vferry.lab.topology import GUESTS, HOSTS, Host

KEYS = ("key", "key.pub")  # of ssh; the booted hosts know them


def key(base: Path) -> str:
    """Content key: what the hosts boot, how they are emulated, and by which machine's CPU.

    vferry itself is not part of it, or each change would mean a boot: the newer one is pushed after restoring.
    """
    flags = hosts.cpu_flags()
    argv = [word for host in HOSTS for word in qemu.command(host, qemu.Taps(0, 0), GUESTS, "", flags)]
    return cache.digest(product.frame(base), *argv)


def find(base: Path) -> Path | None:
    """The kept hosts that fit, if any."""
    folder = places.CACHE / f"booted-{key(base)}"
    return folder if folder.exists() else None


def keep(base: Path, top: Path, lab: Path) -> Path:
    """Keeps hosts and guests as they are now; they pause for some seconds and go on."""
    with outer.step("keeping the booted hosts for the next time"):
        return cache.layer("booted", key(base), lambda folder: _fill(folder, top, lab))


def _fill(folder: Path, top: Path, lab: Path) -> None:
    folder.chmod(0o700)
    with ExitStack() as stack:
        monitors = [stack.enter_context(Monitor(places.RUN / f"{host.name}.qmp")) for host in HOSTS]
        for monitor in monitors:  # all stand still before any is copied
            monitor.execute("stop")
            stack.callback(monitor.execute, "cont")
        for host, monitor in zip(HOSTS, monitors, strict=True):
            monitor.migrate("migrate", f"file:{qemu.LAB}/{state(host)}")
        for name in [*files(), *map(state, HOSTS)]:
            _copy(lab / name, folder / name)
    for host in HOSTS:
        (lab / state(host)).unlink()
    # Links: the disks' overlays lie over this very image, also when its layer is gone.
    shutil.copytree(top, folder / "product", copy_function=os.link, symlinks=True)
    (folder / "product-name").write_text(top.name)


def files() -> list[str]:
    """What is copied back into the lab's folder: what hosts and guests write to, and the ssh key the hosts know."""
    overlays = [name for host in HOSTS for name in qemu.overlays(host)]
    return [*KEYS, *overlays, *(guest.disk for guest in GUESTS)]


def state(host: Host) -> str:
    """File name of a host's memory and devices."""
    return f"{host.name}.state"


def place(kept: Path, lab: Path) -> None:
    """Copies the kept disks and the ssh key into the lab's folder."""
    for name in files():
        _copy(kept / name, lab / name)


def resume(host: Host) -> None:
    """Restores a host whose emulator waits for it (`qemu.command(…, restore=True)`)."""
    with Monitor(places.RUN / f"{host.name}.qmp") as monitor:
        monitor.migrate("migrate-incoming", f"file:{qemu.KEPT}/{state(host)}")
        monitor.execute("cont")


def product_name(kept: Path) -> str:
    """Name of the product layer that the kept hosts have."""
    return (kept / "product-name").read_text()


def _copy(source: Path, target: Path) -> None:
    outer.call(["cp", "--reflink=auto", "--sparse=always", "--preserve=mode", "-T", source, target])
