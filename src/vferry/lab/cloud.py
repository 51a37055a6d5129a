"""The layer of cloud guests: Debian 13's generic cloud image, composed anew, as the image of a guest's disk.

Debian's own is not among what a mirror has, so its packages are installed, as Debian's build of it does, without
recommended ones. What differs is said in docs/lab.md. The kernel is the hosts' base layer's, with all its modules, so
that the one that libvirt boots fits the image whenever the two were built.
"""

import shutil
from pathlib import Path

from vferry.lab import archive, cache, outer, owner, places
from vferry.lab.release import DEBIAN13
from vferry.lab.topology import Guest

PACKAGES = (
    "init",
    "systemd-sysv",
    "libpam-systemd",
    "systemd-resolved",
    "systemd-timesyncd",
    "libnss-resolve",
    "libnss-myhostname",
    "netplan.io",
    "polkitd",
    "dbus",
    "udev",
    "kmod",
    "cloud-init",
    "cloud-guest-utils",
    "unattended-upgrades",
    "apparmor",
    "sudo",
    "e2fsprogs",
    "dosfstools",
    "apt-utils",
    "iptables",
    "iputils-ping",
    "linux-sysctl-defaults",
    "less",
    "nano",
    "netbase",
    "vim-tiny",
    "whiptail",
    "zstd",
    # What an operator of a cloud adds: the guest agent, and ethtool for `files/on-uevent`.
    "qemu-guest-agent",
    "ethtool",
)
FSTAB = "LABEL=root / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1\n"
# An emulated CPU pays for each interrupt; see files/on-uevent.
RULE = (
    'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="igbvf", RUN+="/usr/bin/systemd-run --no-block '
    '--setenv=SUBSYSTEM --setenv=ACTION --setenv=INTERFACE /usr/local/sbin/on-uevent"\n'
)


def key(ground: Path, mirror: str) -> str:
    """Content key: the base layer, whose kernel it has, and what is installed, from where, by which code."""
    return cache.digest(ground.name, mirror, Path(__file__).read_text(), (places.FILES / "on-uevent").read_text())


def ensure(ground: Path) -> Path:
    """Folder of the cloud layer, which holds disk.img; `ground` is the base layer whose kernel guests have."""
    mirror = outer.debian_mirror()
    return cache.layer("cloud", key(ground, mirror), lambda folder: build(folder, ground, mirror))


def build(folder: Path, ground: Path, mirror: str) -> None:
    """Fills the cloud layer; about a minute."""
    root = folder / "root"
    with outer.step("composing Debian 13's cloud image (about a minute, once)"):
        argv = ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
        suite = DEBIAN13.suite
        outer.call([*argv, suite, root, f"deb {mirror} {suite} main"], env={"LC_ALL": "C.UTF-8"})
        finish(root, ground / "root")
        image = folder / "disk.img"
        outer.call(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-d", root, image, "1G"])
    shutil.rmtree(root)


def finish(root: Path, ground: Path) -> None:
    """What Debian's build of the image does after installing, and the lab's own rule."""
    outer.call(["chroot", root, "systemctl", "-q", "enable", "systemd-networkd", "systemd-resolved"])
    (root / "etc/fstab").write_text(FSTAB)
    (root / "etc/default/locale").write_text("LANG=C.UTF-8\n")
    for name in ("etc/hostname", "etc/machine-id"):
        (root / name).write_text("")
    for name in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / name, ignore_errors=True)
    kernel = archive.kernel_of(ground)
    shutil.copytree(ground / "usr/lib/modules" / kernel, root / "usr/lib/modules" / kernel, symlinks=True)
    (root / "etc/udev/rules.d/90-vferry-lab.rules").write_text(RULE)
    shutil.copy2(places.FILES / "on-uevent", root / "usr/local/sbin/on-uevent")


def blank(guest: Guest, disk: Path) -> None:
    """Makes a cloud guest's disk, which stays empty until the guest is wanted (`provide`)."""
    disk.unlink(missing_ok=True)
    _note(disk).unlink(missing_ok=True)
    outer.call(["truncate", "-s", f"{guest.disk_mib}M", disk])


def provide(guest: Guest, lab: Path) -> None:
    """Fills a cloud guest's disk when the guest is first wanted.

    In place, for the hosts' emulators have the file open. A host reads it past its own cache (`cache='none'`).
    """
    disk = lab / guest.disk
    if _note(disk).exists():
        return
    layer = ensure(owner.ground())
    with outer.step(f"filling {guest.name}'s disk"):
        outer.call(["dd", f"if={layer}/disk.img", f"of={disk}", "bs=1M", "conv=notrunc,sparse", "status=none"])
    _note(disk).write_text(layer.name)


def _note(disk: Path) -> Path:
    """Says which layer a disk was filled from; a disk without it is empty, or was filled in part."""
    return disk.with_suffix(".filled")
