"""Initial RAM file systems: which kernel modules go in, in which order, and packing them."""

import lzma
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from vferry.lab import outer

HOST_MODULES = ("virtio_pci", "virtio_blk", "ext4")  # the first is built into Debian 13's kernel
GUEST_MODULES = (
    "virtio_net",
    "igbvf",
    "virtio_blk",
    "ext4",
    "virtio_balloon",
    "virtio_rng",
    "virtio_console",
    "failover",
    "net_failover",
    "sch_ingress",
    "cls_matchall",
    "act_mirred",
    "bonding",
    "8021q",
)


def kernel_of(root: Path) -> str:
    """Release of the (newest) kernel installed below `root`."""
    return sorted(folder.name for folder in (root / "lib/modules").iterdir())[-1]


def load_order(shown: str) -> list[str]:
    """Module files in the order in which `modprobe --show-depends` printed them, each one once."""
    files = [line.split()[1] for line in shown.splitlines() if line.startswith("insmod ")]
    return list(dict.fromkeys(files))


def module_files(root: Path, names: Iterable[str]) -> list[Path]:
    """Files of the named modules and of what they depend on, in load order; what is built in needs none."""
    kernel, shown = kernel_of(root), ""
    for name in names:
        shown += outer.call(["modprobe", "-d", root, "-S", kernel, "--show-depends", name])
    return [Path(file) for file in load_order(shown)]


def copy_modules(root: Path, names: Iterable[str], target: Path) -> None:
    """Copies modules uncompressed into `target`, numbered in load order: insmod in that order is enough."""
    target.mkdir(parents=True)
    for number, file in enumerate(module_files(root, names), start=10):
        data = file.read_bytes()
        if file.suffix == ".xz":
            data = lzma.decompress(data)
        (target / f"{number}-{file.name.removesuffix('.xz')}").write_bytes(data)


def libraries(shown: str) -> list[str]:
    """Absolute paths of the shared libraries that `ldd` printed, the loader included."""
    return list(dict.fromkeys(re.findall(r"(/\S+) \(0x", shown)))


def copy_programs(root: Path, programs: Sequence[str], target: Path) -> None:
    """Copies programs of `root` with the libraries they load into `target`, under the same paths."""
    shown = outer.call(["chroot", root, "ldd", *programs])
    for path in [*programs, *libraries(shown)]:
        file = target / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / path.lstrip("/"), file)


def pack(folder: Path, target: Path) -> None:
    """Packs a folder as an uncompressed archive: unpacking a compressed one is slow in an emulated CPU.

    Archives may be concatenated: the kernel unpacks one after the other.
    """
    names = "\0".join([".", *sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))])
    with target.open("wb") as out:
        subprocess.run(
            ["cpio", "--null", "-o", "-H", "newc", "--quiet", "-R", "0:0"],
            input=names.encode(),
            stdout=out,
            cwd=folder,
            check=True,
        )


def join(parts: Iterable[Path], target: Path) -> None:
    """Concatenates archives into one file."""
    with target.open("wb") as out:
        for part in parts:
            out.write(part.read_bytes())
