"""The fast layers: vferry's dependencies, and vferry itself with everything the lab lays over a host's root."""

import json
import os
import re
import shutil
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from vferry.lab import archive, boot, cache, outer, places, seed
from vferry.lab.guestxml import definition, file_name
from vferry.lab.release import DEBIAN13, Release
from vferry.lab.topology import GUESTS, HOSTS, Host, Setup, Standby, preferred

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
SHIPPED = {  # file of the package, which its author may not have written yet → place in a host
    "host/vferry-agent.service": "etc/systemd/system/vferry-agent.service",
    "host/apparmor-libvirt-qemu": "etc/apparmor.d/local/abstractions/libvirt-qemu",
}
COMPRESSION = re.compile(r"""( and)? extra == ['"]compression['"]""")
ENABLED = ("vferry-lab-host.service", "vferry-lab-ready.service", "vferry-agent.service")


def dependencies() -> list[str]:
    """Requirements of the installed vferry with its extra `compression`, since hosts have gateways, and no other."""
    lines = (COMPRESSION.sub("", line).rstrip("; ") for line in metadata.requires("vferry") or [])
    return sorted(line for line in lines if "extra ==" not in line)


def ensure_dependencies(release: Release, base: Path) -> Path:
    """Folder of the layer with vferry's dependencies for a release's Python, compiled."""
    wanted = dependencies()
    key_ = cache.digest(release.python, *wanted)
    return cache.layer(release.layer("python"), key_, lambda folder: install(folder, wanted, release.python, base))


def install(folder: Path, wanted: list[str], python: str, base: Path) -> None:
    """Downloads wheels for the hosts' Python (not this one) and unpacks them."""
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    argv += ["--target", str(folder / "site"), "--python-version", python, "--implementation", "cp"]
    argv += ["--only-binary=:all:", *(f"--platform={name}" for name in PLATFORMS), *wanted]
    with outer.step(f"getting vferry's dependencies for Python {python}"):
        outer.call(argv, env={"PIP_ROOT_USER_ACTION": "ignore"})
        compile_all(base, folder / "site")


def compile_all(base: Path, site: Path) -> None:
    """Compiles Python files with the hosts' interpreter, so that an emulated CPU need not."""
    script = (
        'mount -t tmpfs none "$1/mnt" && mkdir "$1/mnt/site" && mount --bind "$2" "$1/mnt/site" && '
        'exec chroot "$1" python3 -m compileall -q -j 0 -s /mnt -p /opt/vferry /mnt/site'
    )
    outer.call(["unshare", "-m", "sh", "-c", script, "compile", base / "root", site])


def sources() -> list[Path]:
    """Files of the vferry package."""
    return [p for p in places.PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]


class Below(NamedTuple):
    """The layers that a product layer is made on: a release's, and Debian 13's boot layer, which is the guests'."""

    base: Path
    python: Path
    boot: Path
    guests: Path

    @property
    def key(self) -> str:
        return cache.digest(*(folder.name for folder in self))


def below(release: Release, base: Path, ground: Path) -> Below:
    """Builds what is missing; `ground` is Debian 13's base layer."""
    own = ensure_dependencies(release, base), boot.ensure(release, base)
    return Below(base, *own, boot.ensure(DEBIAN13, ground))


def frame(release: Release, base: Path, ground: Path) -> str:
    """Content key of what a host boots but for vferry itself, which can be replaced while it runs."""
    return cache.digest(below(release, base, ground).key, cache.digest_files(places.PACKAGE, framing()))


def framing() -> list[Path]:
    """Files of the package that make the frame."""
    lab = places.PACKAGE / "lab"
    own = [file for file in sources() if file.is_relative_to(places.FILES)]
    return own + [
        lab / name for name in ("product.py", "guestxml.py", "topology.py", "seed.py", "iso.py", "release.py")
    ]


def ensure(release: Release, base: Path, ground: Path, setup: Setup) -> Path:
    """Folder of a release's product layer: product.img, vmlinux, host.cpio, and tree/, what the image holds."""
    under = below(release, base, ground)
    key = cache.digest(under.key, cache.digest_files(places.PACKAGE, sources()), setup.standby.name)
    name = replace(release, variant=setup.variant).layer("product")
    return cache.layer(name, key, lambda folder: build(folder, release, under, setup.standby))


def build(folder: Path, release: Release, under: Below, standby: Standby) -> None:
    """Fills the product layer; seconds."""
    with outer.step(f"packing vferry and the guests for hosts with {release.name}"):
        tree = folder / "tree"
        tree.mkdir(mode=0o755)
        shutil.copytree(places.FILES / "overlay", tree / "overlay")
        site(tree / "site", under.base, under.python)
        overlay(tree / "overlay")
        for host in HOSTS:
            (tree / "hosts" / host.name).mkdir(parents=True)
            (tree / "hosts" / host.name / "agent.toml").write_text(agent_settings(host, standby))
        guests(tree / "lab", folder, under.guests, release.machine, standby)
        pack_init(folder, places.FILES / "host-init", folder / "init.cpio")
        archive.join([under.boot / "host.cpio", folder / "init.cpio"], folder / "host.cpio")
        os.link(under.boot / "vmlinux", folder / "vmlinux")
        outer.call(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, folder / "product.img", "320M"])


def site(target: Path, base: Path, python: Path) -> None:
    """vferry and its dependencies as a folder for the hosts' Python."""
    own = target / "vferry"
    shutil.copytree(places.PACKAGE, own, ignore=shutil.ignore_patterns("__pycache__", "lab"))
    shutil.copytree(places.PACKAGE / "lab", own / "lab", ignore=shutil.ignore_patterns("__pycache__", "files"))
    info = target / f"vferry-{metadata.version('vferry')}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(metadata.distribution("vferry").read_text("METADATA") or "")
    compile_all(base, target)
    shutil.copytree(python / "site", target, dirs_exist_ok=True)


def overlay(tree: Path) -> None:
    """Adds to the overlay what is not a plain file of the lab: masked and enabled units, shipped files."""
    units = tree / "etc/systemd/system"
    rules = tree / "etc/udev/rules.d"
    rules.mkdir(parents=True)
    for folder, listed in ((units, "units-off"), (rules, "rules-off")):
        for name in masked((places.FILES / listed).read_text()):
            (folder / name).symlink_to("/dev/null")
    for file, place in SHIPPED.items():
        source = places.PACKAGE / file
        if source.exists():
            (tree / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, tree / place)
    wants = units / "multi-user.target.wants"
    wants.mkdir()
    for unit in ENABLED:
        if (units / unit).exists():
            (wants / unit).symlink_to(f"/etc/systemd/system/{unit}")


def masked(text: str) -> list[str]:
    """Names in files/units-off or files/rules-off."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def guests(target: Path, folder: Path, booting: Path, machine: str, standby: Standby) -> None:
    """Kernel, initial RAM file systems, definitions and seeds of the guests."""
    (target / "spare").mkdir(parents=True)
    shutil.copy2(booting / "vmlinux", target / "vmlinux")
    for name in ("guest", "disk"):
        pack_init(folder, places.FILES / f"{name}-init", folder / f"{name}-init.cpio")
        archive.join([booting / "guest.cpio", folder / f"{name}-init.cpio"], target / f"{name}.cpio")
    for guest in GUESTS:
        if guest.seeded:
            (target / f"{guest.name}.iso").write_bytes(seed.image(guest))
        (target / file_name(guest)).write_text(definition(guest, machine, standby))


def pack_init(folder: Path, init: Path, target: Path) -> None:
    """An archive of one init, and of the scripts it calls, to be put behind an archive without one."""
    tree = folder / "init-tree"
    (tree / "sbin").mkdir(parents=True)
    shutil.copy2(init, tree / "init")
    for script in ("udhcpc-script", "on-uevent"):
        shutil.copy2(places.FILES / script, tree / "sbin" / script)
    archive.pack(tree, target)
    shutil.rmtree(tree)


def agent_settings(host: Host, standby: Standby) -> str:
    """/etc/vferry/agent.toml of a host."""
    pfs = preferred(host, standby)
    bridge = f'bridge = "{standby.bridge}"' if standby.bridge else ""
    return f"""\
name = "{host.name}"

[migration]
address = "{host.address}"
ports = "49200-49215"
slots = 2

[agent]
listen = "{host.address}:7443"

[networks.physnet1]
pf = {json.dumps(pfs if len(pfs) > 1 else pfs[0])}
{bridge}
"""
