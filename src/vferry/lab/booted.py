"""The layer of booted hosts: their memory and disks when they were ready, so that the next boot takes seconds."""

import os
import shutil
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
    """Keeps the hosts as they are now; they pause for a second or two and go on."""
    with outer.step("keeping the booted hosts for the next time"):
        return cache.layer("booted", key(base), lambda folder: _fill(folder, top, lab))


def _fill(folder: Path, top: Path, lab: Path) -> None:
    folder.chmod(0o700)
    for host in HOSTS:
        with Monitor(places.RUN / f"{host.name}.qmp") as monitor:
            monitor.execute("stop")
            try:
                monitor.migrate("migrate", f"file:{qemu.LAB}/{state(host)}")
                for name in qemu.overlays(host):
                    _copy(lab / name, folder / name)
            finally:
                monitor.execute("cont")
        _copy(lab / state(host), folder / state(host))
        (lab / state(host)).unlink()
    for name in KEYS:
        shutil.copy2(lab / name, folder / name)
    # Links: the disks' overlays lie over this very image, also when its layer is gone.
    shutil.copytree(top, folder / "product", copy_function=os.link, symlinks=True)
    (folder / "product-name").write_text(top.name)


def state(host: Host) -> str:
    """File name of a host's memory and devices."""
    return f"{host.name}.state"


def place(kept: Path, lab: Path) -> None:
    """Puts what the hosts write to, and the ssh key they know, into the lab's folder."""
    for name in [*KEYS, *(name for host in HOSTS for name in qemu.overlays(host))]:
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
