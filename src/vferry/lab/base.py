"""The slow layer: a stock Debian root with kernel, QEMU and libvirt, as a folder and as a disk image."""

import shlex
import shutil
from functools import partial
from pathlib import Path

from vferry.lab import cache, outer
from vferry.lab.release import Release

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
PREFERENCES = "etc/apt/preferences.d"
IMAGE_SIZE = "3G"  # sparse; what a host writes goes to a temporary overlay


def key(release: Release, mirror: str) -> str:
    """Content key: what is installed, from where, and the code that does it."""
    code = Path(__file__).read_text()
    return cache.digest(release.suite, *release.packages, release.backported, mirror, code)


def ensure(release: Release) -> Path:
    """Folder of a release's base layer: root/ and host.img."""
    outer.install_missing()
    mirror = outer.debian_mirror()
    build_it = partial(build, release=release, mirror=mirror)
    return cache.layer(release.layer("base"), key(release, mirror), build_it)


def build(folder: Path, release: Release, mirror: str) -> None:
    """Fills the base layer; a few minutes, most of it downloading and installing packages."""
    root = folder / "root"
    with outer.step(f"installing a {release.name} root with QEMU and libvirt (about a minute)"):
        bootstrap(root, release, mirror)
    with outer.step("writing the hosts' disk image"):
        trim(root)
        outer.call(["mke2fs", "-q", "-F", "-t", "ext4", "-d", root, folder / "host.img", IMAGE_SIZE])


def bootstrap(root: Path, release: Release, mirror: str) -> None:
    """Runs mmdebstrap; raises `Problem` with the end of its log."""
    argv = ["mmdebstrap", "--variant=minbase", f"--include={','.join((*PACKAGES, *release.packages))}"]
    suites = [release.suite]
    if release.backported:
        suites.append(f"{release.suite}-backports")
        text = shlex.quote(pin(release.backported, suites[-1]))
        argv.append(f'--setup-hook=mkdir -p "$1/{PREFERENCES}" && printf %s {text} > "$1/{PREFERENCES}/backports"')
    sources = [f"deb {mirror} {suite} main" for suite in suites]
    outer.call([*argv, release.suite, root, *sources], env={"LC_ALL": "C.UTF-8"})


def pin(packages: str, suite: str) -> str:
    """apt's preferences that take packages from a suite."""
    return f"Package: {packages}\nPin: release n={suite}\nPin-Priority: 990\n"


def trim(root: Path) -> None:
    """Removes what a host never reads, so that the image is small; the root itself runs the outer QEMU."""
    for folder in ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / folder, ignore_errors=True)
    for file in (root / "boot").glob("initrd*"):
        file.unlink()
