"""The layer of guests with a device that migrates itself: `mtty`, the kernel's sample of one, built for the hosts.

Debian's kernels are built without their samples, so the module is built from Debian's source of just the hosts'
kernel, in a root of its own that is thrown away. It emulates a PCI card with two serial ports as a mediated device.
"""

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from vferry.lab import archive, cache, hosts, outer, owner, reach
from vferry.lab.release import DEBIAN13
from vferry.lab.topology import Guest, Host
from vferry.model.problem import Exit, Problem

if TYPE_CHECKING:
    from vferry.lab.lab import Lab

NAME = "mtty"
TYPES = f"/sys/class/mdev_bus/{NAME}/mdev_supported_types"
LOAD = f"[ -d {TYPES} ] || {{ modprobe mdev && cat > /run/{NAME}.ko && insmod /run/{NAME}.ko; }}"
MAKE = f'[ -e "/sys/bus/mdev/devices/$1" ] || echo "$1" > {TYPES}/{NAME}-2/create'


def key(ground: Path, mirror: str) -> str:
    """Content key: the base layer, for whose kernel it is, from where, and by which code."""
    return cache.digest(ground.name, mirror, Path(__file__).read_text())


def ensure(ground: Path) -> Path:
    """Folder of the layer, which holds mtty.ko; `ground` is the base layer that the hosts booted."""
    mirror = outer.debian_mirror()
    return cache.layer(NAME, key(ground, mirror), lambda folder: build(folder, ground, mirror))


def build(folder: Path, ground: Path, mirror: str) -> None:
    """Fills the layer; about a minute, most of it downloading the kernel's source."""
    kernel, root = archive.kernel_of(ground / "root"), folder / "root"
    series = ".".join(kernel.split(".")[:2])
    version = outer.call(["chroot", ground / "root", "dpkg-query", "-W", "-f", "${Version}", f"linux-image-{kernel}"])
    packages = f"linux-headers-{kernel},linux-source-{series}={version},make"
    with outer.step(f"building the module {NAME} for the hosts' kernel (about a minute, once)"):
        argv = ["mmdebstrap", "--variant=minbase", f"--include={packages}"]
        outer.call([*argv, DEBIAN13.suite, root, f"deb {mirror} {DEBIAN13.suite} main"], env={"LC_ALL": "C.UTF-8"})
        compile_module(root, kernel, f"linux-source-{series}")
        shutil.copy2(root / f"build/{NAME}.ko", folder)
    shutil.rmtree(root)


def compile_module(root: Path, kernel: str, source: str) -> None:
    """Builds /build/mtty.ko in a root that has the kernel's headers and source."""
    (root / "build").mkdir()
    (root / "build/Makefile").write_text(f"obj-m := {NAME}.o\n")
    taken = f"{source}/samples/vfio-mdev/{NAME}.c"
    unpack = ["tar", "-xJf", f"/usr/src/{source}.tar.xz", "-C", "/build", "--strip-components=3", taken]
    make = ["make", "-C", f"/usr/src/linux-headers-{kernel}", "M=/build", "modules"]
    for argv in (unpack, make, ["strip", "--strip-debug", f"/build/{NAME}.ko"]):
        outer.call(["chroot", root, *argv])


def provide(lab: "Lab", guest: Guest, home: str) -> None:
    """Has all running hosts offer such devices, and makes the guest's on the host that it is about to start on."""
    ground, who = owner.ground(), owner.current()
    if who is not None and not who.layers.usual:
        raise Problem("lab-no-device", f"{NAME} migrates since Linux 6.7, newer than Debian 12's", "Use other hosts")
    module = ensure(ground) / f"{NAME}.ko"
    for host in hosts.running():
        _load(host, lab.folder, module)
    done = lab.run(home, ["sh", "-c", MAKE, "make", guest.device or ""])
    if done.returncode != 0:
        raise Problem("lab-no-device", f"{home} does not make {guest.name}'s device: {done.stderr}", exit=Exit.UNDONE)


def _load(host: Host, folder: Path, module: Path) -> None:
    with module.open("rb") as data:
        words = reach.command(host, folder, ["sh", "-c", LOAD])
        done = subprocess.run(words, stdin=data, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Problem("lab-no-module", f"{host.name} does not load {NAME}: {done.stderr.strip()}", exit=Exit.UNDONE)
