"""The slow layer: a stock Debian 13 root with kernel, QEMU and libvirt, as a folder and as a disk image."""

import shlex
import shutil
from pathlib import Path

from vferry.lab import cache, outer

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
    "libqatzip3",
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


def key(mirror: str) -> str:
    """Content key: what is installed, from where, and the code that does it."""
    code = Path(__file__).read_text()
    return cache.digest(SUITE, mirror, code)


def ensure() -> Path:
    """Folder of the base layer: root/ and host.img."""
    outer.install_missing()
    mirror = outer.debian_mirror()
    return cache.layer("base", key(mirror), lambda folder: build(folder, mirror))


def build(folder: Path, mirror: str) -> None:
    """Fills the base layer; a few minutes, most of it downloading and installing packages."""
    root = folder / "root"
    with outer.step("installing a Debian 13 root with QEMU and libvirt (about a minute)"):
        bootstrap(root, mirror)
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
