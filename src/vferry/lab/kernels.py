"""Kernels of guests' own: the oldest and the newest that Debian's packages offer, with the modules that guests load.

They are taken from suites that no host is made of, without anything that they depend on. Hosts are given them when such
a guest is first wanted; the rest of its initial RAM file system is that of the other guests.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from vferry.lab import archive, boot, cache, hosts, outer, reach
from vferry.lab.guestxml import KERNELS, LAB
from vferry.lab.topology import Guest, Host
from vferry.model.problem import Exit, Problem

if TYPE_CHECKING:
    from vferry.lab.lab import Lab

SUITES = {"oldest": ("bullseye",), "newest": ("trixie-backports", "sid")}
"""Where a kernel is taken from; the newest one of several suites."""
ARCHIVE = "kernel.tar.gz"
# Once for each layer, whole or not at all: a guest is started from what is there.
GIVE = f"""set -e
[ "$(cat "$1/layer" 2>/dev/null)" != "$2" ] || exit 0
rm -rf "$1"; mkdir -p "$1"
tar -xzf - -C "$1"
cat {LAB}/guest.cpio "$1/modules.cpio" > "$1/guest.cpio"
echo "$2" > "$1/layer\""""


def key(name: str, mirror: str) -> str:
    """Content key: which kernel, from where, and by which code."""
    code = "".join(Path(file).read_text() for file in (__file__, archive.__file__, boot.__file__))
    return cache.digest(*SUITES[name], mirror, code)


def ensure(name: str) -> Path:
    """Folder of the layer of a kernel, which holds `ARCHIVE`."""
    mirror = outer.debian_mirror()
    return cache.layer(name, key(name, mirror), lambda folder: build(folder, name, mirror))


def build(folder: Path, name: str, mirror: str) -> None:
    """Fills the layer; half a minute, most of it downloading."""
    with outer.step(f"getting the {name} kernel of Debian's packages (once)"):
        root = folder / "root"
        fetch(folder / "apt", root, SUITES[name], mirror)
        pack(root, folder)
    for used in (root, folder / "apt"):
        shutil.rmtree(used)


def fetch(work: Path, root: Path, suites: tuple[str, ...], mirror: str) -> None:
    """Unpacks a kernel's packages below `root`, with lists of apt's own in `work`."""
    for name in ("lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    (work / "sources.list").write_text("".join(f"deb {mirror} {suite} main\n" for suite in suites))
    # Of backports, apt takes nothing by itself.
    (work / "preferences").write_text("Package: *\nPin: release *\nPin-Priority: 500\n")
    settings = settings_of(work)
    outer.call(["apt-get", *settings, "-qq", "update"])
    shown = outer.call(["apt-cache", *settings, "depends", "--recurse", "--important", "linux-image-amd64"])
    outer.call(["env", "-C", work, "apt-get", *settings, "-qq", "download", *packages(shown)])
    for package in sorted(work.glob("*.deb")):
        outer.call(["dpkg-deb", "-x", package, root])
    if not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")


def settings_of(work: Path) -> list[str]:
    """Options by which apt knows nothing but `work`, and the machine's keys."""
    words = {
        "Dir::Etc::SourceList": work / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": work / "preferences",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State": work,
        "Dir::State::Status": "/dev/null",
        "Dir::Cache": work / "cache",
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    return [f"-o{name}={value}" for name, value in words.items()]


def packages(shown: str) -> list[str]:
    """Of what `apt-cache depends --recurse` printed, the packages that a kernel consists of: one, or several by now."""
    found = re.findall(r"^linux-(?:image|binary|modules|base)-\d\S*$", shown, re.MULTILINE)
    if not found:
        raise Problem("lab-no-kernel", "Debian's packages have no linux-image-amd64 there", exit=Exit.UNDONE)
    return list(dict.fromkeys(found))


def pack(root: Path, folder: Path) -> None:
    """Packs the unpacked kernel and its modules."""
    packed, tree = folder / "packed", folder / "tree"
    outer.call(["depmod", "-b", root, archive.kernel_of(root)])
    packed.mkdir()
    (packed / "vmlinux").write_bytes(boot.kernel(root))
    archive.copy_guest_modules(root, tree)
    archive.pack(tree, packed / "modules.cpio")
    outer.call(["tar", "-C", packed, "-czf", folder / ARCHIVE, "."])
    for used in (tree, packed):
        shutil.rmtree(used)


def provide(lab: "Lab", guest: Guest) -> None:
    """Gives all running hosts a guest's kernel: it may be wanted where the guest migrates to, too."""
    if guest.kernel is None:
        return
    layer = ensure(guest.kernel)
    for host in hosts.running():
        _give(host, lab.folder, guest.kernel, layer)


def _give(host: Host, folder: Path, name: str, layer: Path) -> None:
    words = reach.command(host, folder, ["sh", "-c", GIVE, "give", f"{KERNELS}/{name}", layer.name])
    with (layer / ARCHIVE).open("rb") as data, outer.step(f"giving {host.name} the {name} kernel"):
        done = subprocess.run(words, stdin=data, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Problem("lab-no-kernel", f"{host.name} does not take a kernel: {done.stderr.strip()}", exit=Exit.UNDONE)
