"""The slow layer: a stock Debian 13 root with kernel, QEMU and libvirt, as a folder and as a disk image."""

import inspect
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from vferry.lab import archive, cache, outer

SUITE = "trixie"
BACKPORTS = f"{SUITE}-backports"
PACKAGES = (
    "linux-image-amd64",
    "systemd-sysv",
    "udev",
    "dbus",
    "qemu-system-x86",
    "qemu-utils",
    "qemu-guest-agent",
    "libvirt-daemon-system",
    "libvirt-daemon-driver-qemu",
    "libvirt-clients",
    "python3",
    "python3-libvirt",
    "apparmor",
    "iproute2",
    "nftables",
    "openssh-server",
    "ethtool",
    "tcpdump",
    "iputils-ping",
    "pciutils",
    "procps",
    "kmod",
    "socat",
    "busybox-static",
)
PIN = f"Package: qemu* seabios ipxe-qemu\nPin: release n={BACKPORTS}\nPin-Priority: 990\n"
PREFERENCES = "etc/apt/preferences.d"
IMAGE_SIZE = "3G"  # sparse; what a host writes goes to a temporary overlay
IN_GUEST = ("/usr/sbin/qemu-ga", "/usr/bin/ip")


def key(mirror: str) -> str:
    """Content key: what is installed, from where, and the code that does it."""
    code = inspect.getsource(inspect.getmodule(key) or key) + inspect.getsource(archive)
    return cache.digest(SUITE, mirror, code)


def ensure() -> Path:
    """Folder of the base layer: root/, host.img, vmlinuz, host.cpio, guest.cpio."""
    outer.install_missing()
    mirror = outer.debian_mirror()
    return cache.layer("base", key(mirror), lambda folder: build(folder, mirror))


def build(folder: Path, mirror: str) -> None:
    """Fills the base layer; a few minutes, most of it downloading and installing packages."""
    root = folder / "root"
    with outer.step("installing a Debian 13 root with QEMU and libvirt (about a minute)"):
        bootstrap(root, mirror)
    kernel = archive.kernel_of(root)
    shutil.copy2(root / f"boot/vmlinuz-{kernel}", folder / "vmlinuz")
    with outer.step("packing the initial RAM file systems"):
        pack_host(root, folder)
        pack_guest(root, folder)
    with outer.step("writing the hosts' disk image"):
        trim(root)
        outer.call(["mke2fs", "-q", "-F", "-t", "ext4", "-d", root, folder / "host.img", IMAGE_SIZE])


def bootstrap(root: Path, mirror: str) -> None:
    """Runs mmdebstrap; raises `Problem` with the end of its log."""
    sources = [f"deb {mirror} {suite} main" for suite in (SUITE, BACKPORTS)]
    hook = f'mkdir -p "$1/{PREFERENCES}" && printf %s {shlex.quote(PIN)} > "$1/{PREFERENCES}/backports"'
    argv = ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", f"--setup-hook={hook}"]
    outer.call([*argv, SUITE, root, *sources], env={"LC_ALL": "C.UTF-8"})


def trim(root: Path) -> None:
    """Removes what a host never reads, so that the image is small; the root itself runs the outer QEMU."""
    for folder in ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / folder, ignore_errors=True)
    for file in (root / "boot").glob("initrd*"):
        file.unlink()


def pack_host(root: Path, folder: Path) -> None:
    """host.cpio: what a host's kernel needs until it has its root; its init is in the product layer."""
    tree = folder / "host-tree"
    _skeleton(root, tree)
    archive.copy_modules(root, archive.HOST_MODULES, tree / "lib/mods")
    archive.pack(tree, folder / "host.cpio")
    shutil.rmtree(tree)


def pack_guest(root: Path, folder: Path) -> None:
    """guest.cpio: a guest's whole system but its init, which is in the product layer."""
    tree = folder / "guest-tree"
    _skeleton(root, tree)
    archive.copy_modules(root, archive.GUEST_MODULES, tree / "lib/mods")
    archive.copy_programs(root, IN_GUEST, tree)
    archive.pack(tree, folder / "guest.cpio")
    shutil.rmtree(tree)


def _skeleton(root: Path, tree: Path) -> None:
    for name in ("bin", "sbin", "usr/bin", "usr/sbin", "proc", "sys", "dev", "run", "tmp", "mnt", "data", "etc"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    shutil.copy2(root / "usr/bin/busybox", tree / "bin/busybox")
    applets = subprocess.run(
        [tree / "bin/busybox", "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    for applet in applets:
        if applet not in ("busybox", "ip"):  # bond details and JSON need the real `ip`
            os.symlink("/bin/busybox", tree / "bin" / applet)
