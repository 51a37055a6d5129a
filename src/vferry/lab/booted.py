"""The layer of booted hosts: memory and disks when the first guests answered; restoring takes seconds."""

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from vferry.lab import cache, hosts, outer, places, product, qemu
from vferry.lab.layers import Layers
from vferry.lab.qmp import Monitor
from vferry.lab.topology import GUESTS, HOSTS, Host

KEYS = ("key", "key.pub")  # of ssh; the booted hosts know them


def key(layers: Layers) -> str:
    """Content key: what the hosts boot, how they are emulated, and by which machine's CPU.

    vferry itself is not part of it, or each change would mean a boot: the newer one is pushed after restoring.
    """
    flags = hosts.cpu_flags()
    setup = layers.setup
    taps = qemu.Taps(0, 0, 0 if len(setup.standby.pfs) > 1 else None)
    argv = [word for host in HOSTS for word in qemu.command(host, taps, GUESTS, "", flags, setup=setup)]
    ground = Path(layers.ground)
    frames = (product.frame(layers.release(host), Path(layers.of(host).base), ground) for host in HOSTS)
    return cache.digest(*frames, *argv)


def name(layers: Layers) -> str:
    """Name of the layer: hosts of other releases, or with another setup, do not displace the usual."""
    return "booted" if layers.usual else "mixed"


def find(layers: Layers) -> Path | None:
    """The kept hosts that fit, if any."""
    folder = places.CACHE / f"{name(layers)}-{key(layers)}"
    return folder if folder.exists() else None


def keep(layers: Layers, lab: Path) -> Path:
    """Keeps hosts and guests as they are now; they pause for some seconds and go on."""
    with outer.step("keeping the booted hosts for the next time"):
        return cache.layer(name(layers), key(layers), lambda folder: _fill(folder, layers, lab))


def _fill(folder: Path, layers: Layers, lab: Path) -> None:
    folder.chmod(0o700)
    with ExitStack() as stack:
        monitors = [stack.enter_context(Monitor(places.RUN / f"{host.name}.qmp")) for host in HOSTS]
        for monitor in monitors:  # all stand still before any is copied
            monitor.execute("stop")
            stack.callback(monitor.execute, "cont")
        for host, monitor in zip(HOSTS, monitors, strict=True):
            monitor.migrate("migrate", f"file:{qemu.LAB}/{state(host)}")
        for file in [*files(), *map(state, HOSTS)]:
            _copy(lab / file, folder / file)
    for host in HOSTS:
        (lab / state(host)).unlink()
        top = Path(layers.of(host).product)
        # Links: the disks' overlays lie over this very image, also when its layer is gone.
        shutil.copytree(top, product_of(folder, host), copy_function=os.link, symlinks=True)
        (folder / f"{host.name}.product-name").write_text(top.name)


def files() -> list[str]:
    """What is copied back into the lab's folder: what hosts and guests write to, and the ssh key the hosts know."""
    overlays = [file for host in HOSTS for file in qemu.overlays(host)]
    return [*KEYS, *overlays, *(guest.disk for guest in GUESTS)]


def state(host: Host) -> str:
    """File name of a host's memory and devices."""
    return f"{host.name}.state"


def place(kept: Path, lab: Path) -> None:
    """Copies the kept disks and the ssh key into the lab's folder."""
    for file in files():
        _copy(kept / file, lab / file)


def resume(host: Host) -> None:
    """Restores a host whose emulator waits for it (`qemu.command(…, restore=True)`)."""
    with Monitor(places.RUN / f"{host.name}.qmp") as monitor:
        monitor.migrate("migrate-incoming", f"file:{qemu.KEPT}/{state(host)}")
        monitor.execute("cont")


def product_of(kept: Path, host: Host) -> Path:
    """Folder of the product layer that a kept host has."""
    return kept / f"{host.name}.product"


def as_kept(layers: Layers, kept: Path) -> Layers:
    """The layers that kept hosts have: their product layers are their own."""
    return layers.with_products({host.name: product_of(kept, host) for host in HOSTS})


def is_current(layers: Layers, kept: Path) -> bool:
    """Whether kept hosts have the same vferry as the layers."""
    names = {host: (kept / f"{host.name}.product-name").read_text() for host in HOSTS}
    return all(Path(layers.of(host).product).name == names[host] for host in HOSTS)


def _copy(source: Path, target: Path) -> None:
    outer.call(["cp", "--reflink=auto", "--sparse=always", "--preserve=mode", "-T", source, target])
