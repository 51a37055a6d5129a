"""The layers of guests whose disk holds a system of its own, as the image of that disk.

One is Debian 13's generic cloud image, composed anew: Debian's own is not among what a mirror has, so its packages are
installed, as Debian's build of it does, without recommended ones. The other is a Debian 13 that NetworkManager
configures, from a profile in it. What differs from Debian's is said in docs/lab.md. The kernel is the hosts' base
layer's, with all its modules, so that the one that libvirt boots fits the image whenever the two were built.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from vferry.lab import archive, cache, keyfile, outer, owner, places
from vferry.lab.release import DEBIAN13
from vferry.lab.topology import Guest

SHARED = (
    "init",
    "systemd-sysv",
    "libpam-systemd",
    "polkitd",
    "dbus",
    "udev",
    "kmod",
    "e2fsprogs",
    "iputils-ping",
    "netbase",
    # What an operator of a cloud adds: the guest agent, and ethtool for `files/on-uevent`.
    "qemu-guest-agent",
    "ethtool",
)
CLOUD = (
    "systemd-resolved",
    "systemd-timesyncd",
    "libnss-resolve",
    "libnss-myhostname",
    "netplan.io",
    "cloud-init",
    "cloud-guest-utils",
    "unattended-upgrades",
    "apparmor",
    "sudo",
    "dosfstools",
    "apt-utils",
    "iptables",
    "linux-sysctl-defaults",
    "less",
    "nano",
    "vim-tiny",
    "whiptail",
    "zstd",
)


@dataclass(frozen=True, slots=True)
class Image:
    """What is on such a disk: its layer's name, packages beyond those of all, units to enable, root's own files."""

    layer: str
    packages: tuple[str, ...]
    units: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)


def image(guest: Guest) -> Image:
    """The image that a guest's disk is filled from."""
    if guest.kind == "nm":
        # A profile that others may read is left aside.
        return Image("nm", ("network-manager", "iproute2"), files={keyfile.PLACE: keyfile.profile(guest)})
    return Image("cloud", CLOUD, ("systemd-networkd", "systemd-resolved"))


FSTAB = "LABEL=root / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1\n"
# An emulated CPU pays for each interrupt; see files/on-uevent.
RULE = (
    'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="igbvf", RUN+="/usr/bin/systemd-run --no-block '
    '--setenv=SUBSYSTEM --setenv=ACTION --setenv=INTERFACE /usr/local/sbin/on-uevent"\n'
)


def key(wanted: Image, ground: Path, mirror: str) -> str:
    """Content key: the base layer, whose kernel it has, and what is installed, from where, by which code."""
    own = (wanted.layer, *wanted.files.values())
    return cache.digest(ground.name, mirror, *own, Path(__file__).read_text(), (places.FILES / "on-uevent").read_text())


def ensure(wanted: Image, ground: Path) -> Path:
    """Folder of an image's layer, which holds disk.img; `ground` is the base layer whose kernel guests have."""
    mirror = outer.debian_mirror()
    key_ = key(wanted, ground, mirror)
    return cache.layer(wanted.layer, key_, lambda folder: build(folder, wanted, ground, mirror))


def build(folder: Path, wanted: Image, ground: Path, mirror: str) -> None:
    """Fills the layer; about a minute."""
    root = folder / "root"
    with outer.step(f"composing the image {wanted.layer}, a Debian 13 (about a minute, once)"):
        argv = ["mmdebstrap", "--variant=minbase", f"--include={','.join((*SHARED, *wanted.packages))}"]
        suite = DEBIAN13.suite
        outer.call([*argv, suite, root, f"deb {mirror} {suite} main"], env={"LC_ALL": "C.UTF-8"})
        finish(root, wanted, ground / "root")
        disk = folder / "disk.img"
        outer.call(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-d", root, disk, "1G"])
    shutil.rmtree(root)


def finish(root: Path, wanted: Image, ground: Path) -> None:
    """What Debian's build of an image does after installing, and the lab's own rule."""
    if wanted.units:
        outer.call(["chroot", root, "systemctl", "-q", "enable", *wanted.units])
    for name, text in wanted.files.items():
        (root / name).write_text(text)
        (root / name).chmod(0o600)
    (root / "etc/fstab").write_text(FSTAB)
    (root / "etc/default/locale").write_text("LANG=C.UTF-8\n")
    for name in ("etc/hostname", "etc/machine-id"):
        (root / name).write_text("")
    for name in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / name, ignore_errors=True)
    if not (root / "etc/resolv.conf").is_symlink():  # that of the machine that composed it
        (root / "etc/resolv.conf").unlink(missing_ok=True)
    kernel = archive.kernel_of(ground)
    shutil.copytree(ground / "usr/lib/modules" / kernel, root / "usr/lib/modules" / kernel, symlinks=True)
    (root / "etc/udev/rules.d/90-vferry-lab.rules").write_text(RULE)
    shutil.copy2(places.FILES / "on-uevent", root / "usr/local/sbin/on-uevent")


def blank(guest: Guest, disk: Path) -> None:
    """Makes the disk of a guest with a system of its own, which stays empty until the guest is wanted (`provide`)."""
    disk.unlink(missing_ok=True)
    _note(disk).unlink(missing_ok=True)
    outer.call(["truncate", "-s", f"{guest.disk_mib}M", disk])


def provide(guest: Guest, lab: Path) -> None:
    """Fills the disk of a guest with a system of its own when the guest is first wanted.

    In place, for the hosts' emulators have the file open. A host reads it past its own cache (`cache='none'`).
    """
    disk = lab / guest.disk
    if _note(disk).exists():
        return
    layer = ensure(image(guest), owner.ground())
    with outer.step(f"filling {guest.name}'s disk"):
        outer.call(["dd", f"if={layer}/disk.img", f"of={disk}", "bs=1M", "conv=notrunc,sparse", "status=none"])
    _note(disk).write_text(layer.name)


def _note(disk: Path) -> Path:
    """Says which layer a disk was filled from; a disk without it is empty, or was filled in part."""
    return disk.with_suffix(".filled")
