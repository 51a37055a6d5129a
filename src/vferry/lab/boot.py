"""The layer that hosts and guests boot from: an uncompressed kernel and initial RAM file systems without their init."""

import inspect
import lzma
import shutil
import struct
import subprocess
from pathlib import Path

from vferry.lab import archive, cache, outer
from vferry.lab.release import Release
from vferry.model.problem import Exit, Problem

ZSTD, XZ = bytes.fromhex("28b52ffd"), bytes.fromhex("fd377a585a00")
IN_GUEST = ("/usr/sbin/qemu-ga", "/usr/bin/ip", "/usr/sbin/tc", "/usr/bin/dash", "/usr/sbin/ethtool")
FOLDERS = ("bin", "sbin", "usr/bin", "usr/sbin", "proc", "sys", "dev", "run", "tmp", "mnt", "data", "etc")
# `ip` is the real one (bonds, JSON), and so is `sh`: busybox's prefers its own `ip` whatever the path says.
NOT_BUSYBOX = ("busybox", "ip", "tc", "sh", "ethtool")


def ensure(release: Release, base: Path) -> Path:
    """Folder of a release's boot layer: vmlinux, host.cpio and guest.cpio, made from its base layer."""
    code = inspect.getsource(archive) + Path(__file__).read_text()
    return cache.layer(
        release.layer("boot"), cache.digest(base.name, code), lambda folder: build(folder, base / "root")
    )


def build(folder: Path, root: Path) -> None:
    with outer.step("packing kernel and initial RAM file systems"):
        kernel = root / f"boot/vmlinuz-{archive.kernel_of(root)}"
        (folder / "vmlinux").write_bytes(unpacked(payload(kernel.read_bytes())))
        tree = skeleton(root, folder / "host-tree")
        archive.copy_modules(root, archive.HOST_MODULES, tree / "lib/mods")
        (tree / "bin/sh").symlink_to("busybox")
        _pack(tree, folder / "host.cpio")
        tree = skeleton(root, folder / "guest-tree")
        archive.copy_modules(root, archive.GUEST_MODULES, tree / "lib/mods")
        archive.copy_programs(root, IN_GUEST, tree)
        (tree / "bin/sh").symlink_to("/usr/bin/dash")
        _pack(tree, folder / "guest.cpio")


def payload(image: bytes) -> bytes:
    """The compressed kernel inside a bzImage (boot protocol 2.08: after it comes its unpacked length, 4 bytes).

    Booting the unpacked kernel saves an emulated CPU a second or two of unpacking.
    """
    start = ((image[0x1F1] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    return image[start + offset : start + offset + length - 4]


def unpacked(data: bytes) -> bytes:
    """The kernel itself: Debian 13's is compressed with zstd, Debian 12's with xz."""
    if data.startswith(ZSTD):
        return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    if data.startswith(XZ):
        return lzma.decompress(data)
    raise Problem("lab-kernel-format", "Debian's kernel is compressed neither with zstd nor with xz", exit=Exit.UNDONE)


def skeleton(root: Path, tree: Path) -> Path:
    """A folder with busybox and a link for each of its commands."""
    for name in FOLDERS:
        (tree / name).mkdir(parents=True, exist_ok=True)
    busybox = tree / "bin/busybox"
    shutil.copy2(root / "usr/bin/busybox", busybox)
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet not in NOT_BUSYBOX:
            (tree / "bin" / applet).symlink_to("/bin/busybox")
    return tree


def _pack(tree: Path, target: Path) -> None:
    archive.pack(tree, target)
    shutil.rmtree(tree)
