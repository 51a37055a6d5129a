"""Kernels of guests' own: what they consist of, and how hosts get them."""

import io
import lzma
import os
import shutil
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest

from vferry.lab import archive, base, guests, guestxml, hosts, kernels, outer, reach
from vferry.lab.release import DEBIAN13
from vferry.lab.topology import GUESTS, HOSTS, Host
from vferry.model.problem import Problem

MIRROR = "http://a.test/debian"
OLD = "linux-image-amd64\nlinux-image-5.10.0-32-amd64\n  Depends: linux-base\nlinux-base\n"
NEW = """linux-image-amd64
linux-base-amd64
linux-image-7.3.4+deb13-amd64
linux-modules-amd64
linux-base-7.3.4+deb13-amd64
linux-base
linux-binary-7.3.4+deb13-amd64
linux-modules-7.3.4+deb13-amd64
"""


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (OLD, ["linux-image-5.10.0-32-amd64"]),
        (NEW, [f"linux-{part}-7.3.4+deb13-amd64" for part in ("image", "base", "binary", "modules")]),
    ],
    ids=["one package", "several"],
)
def test_a_kernel_is_one_package_or_several(shown: str, wanted: list[str]) -> None:
    assert kernels.packages(shown) == wanted


def test_a_suite_without_a_kernel_is_a_problem() -> None:
    with pytest.raises(Problem) as caught:
        kernels.packages("linux-base\n")
    assert caught.value.code == "lab-no-kernel"


def test_each_kernel_is_a_layer_of_its_own_and_has_a_guest() -> None:
    keys = {kernels.key(name, MIRROR) for name in kernels.SUITES}
    assert len(keys | {base.key(DEBIAN13, MIRROR)}) == len(kernels.SUITES) + 1
    assert {guest.kernel for guest in GUESTS} - {None} == set(kernels.SUITES)
    assert kernels.key("oldest", MIRROR) != kernels.key("oldest", "http://b.test/debian")


def bzimage(data: bytes) -> bytes:
    packed = lzma.compress(data)
    image = bytearray(2 * 512 + 16)
    image[0x1F1] = 1
    struct.pack_into("<II", image, 0x248, 16, len(packed) + 4)
    return bytes(image) + packed + struct.pack("<I", len(data))


@pytest.mark.parametrize("place", ["boot/vmlinuz-{}", "usr/lib/modules/{}/vmlinuz"])
def test_a_kernel_is_packed_with_its_modules_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    release, root, folder = "5.10.0-32-amd64", tmp_path / "root", tmp_path / "layer"
    file = root / place.format(release)
    for needed in (file.parent, root / "usr/lib/modules" / release, folder):
        needed.mkdir(parents=True, exist_ok=True)
    (root / "lib").symlink_to("usr/lib")
    file.write_bytes(bzimage(b"kernel"))
    (root / "virtio_net.ko").write_bytes(b"module")
    monkeypatch.setattr(archive, "module_files", lambda *_: [root / "virtio_net.ko"])
    called: list[list[str]] = []
    call = outer.call

    def recorded(argv: list[Any], **more: Any) -> str:
        called.append([str(word) for word in argv])
        return "" if argv[0] == "depmod" else call(argv, **more)

    monkeypatch.setattr(outer, "call", recorded)
    kernels.pack(root, folder)
    assert ["depmod", "-b", str(root), release] in called
    assert [each.name for each in folder.iterdir()] == [kernels.ARCHIVE]
    with tarfile.open(folder / kernels.ARCHIVE) as packed:
        kernel, modules = packed.extractfile("./vmlinux"), packed.extractfile("./modules.cpio")
        assert kernel is not None
        assert modules is not None
        assert kernel.read() == b"kernel"
        assert f"lib/mods/{release}/10-virtio_net.ko".encode() in modules.read()


def test_init_loads_the_modules_of_the_kernel_that_runs() -> None:
    for name in ("guest-init", "disk-init"):
        text = (Path(guestxml.__file__).parent / "files" / name).read_text()
        assert "mods=/lib/mods/$(uname -r)" in text
        assert text.count("/lib/mods") == 1


class FakeLab:
    folder = Path("/lab")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel that is built, and hosts that are folders of this machine."""
    layer = tmp_path / "oldest-1"
    layer.mkdir()
    with tarfile.open(layer / kernels.ARCHIVE, "w:gz") as packed:
        for name, data in (("./vmlinux", b"kernel"), ("./modules.cpio", b"modules")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    (tmp_path / "guest.cpio").write_bytes(b"guest")
    monkeypatch.setattr(kernels, "ensure", lambda _name: tmp_path / f"oldest-{os.environ.get('LAYER', '1')}")
    monkeypatch.setattr(hosts, "running", lambda: list(HOSTS))

    def here(host: Host, _folder: Path, argv: list[str]) -> list[str]:
        script = argv[2].replace(guestxml.LAB, str(tmp_path))
        return [*argv[:2], script, argv[3], str(tmp_path / host.name), argv[5]]

    monkeypatch.setattr(reach, "command", here)
    return tmp_path


def test_all_hosts_get_a_kernel_once_for_each_layer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab: Any = FakeLab()
    guest = guests.named("oldest1")
    kernels.provide(lab, guest)
    for host in HOSTS:
        assert (place / host.name / "vmlinux").read_bytes() == b"kernel"
        assert (place / host.name / "guest.cpio").read_bytes() == b"guestmodules"
        (place / host.name / "seen").touch()
    kernels.provide(lab, guest)
    assert all((place / host.name / "seen").exists() for host in HOSTS)
    shutil.copytree(place / "oldest-1", place / "oldest-2")
    monkeypatch.setenv("LAYER", "2")
    kernels.provide(lab, guest)
    assert {(place / host.name / "layer").read_text() for host in HOSTS} == {"oldest-2\n"}


def test_a_host_that_does_not_take_it_is_a_problem(place: Path) -> None:
    lab: Any = FakeLab()
    (place / "guest.cpio").unlink()
    with pytest.raises(Problem, match="does not take a kernel"):
        kernels.provide(lab, guests.named("oldest1"))
    assert not (place / HOSTS[0].name / "layer").exists(), "it is given anew the next time"


def test_a_guest_with_the_usual_kernel_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    lab: Any = FakeLab()
    monkeypatch.setattr(kernels, "ensure", lambda name: pytest.fail(f"{name} is not wanted"))
    kernels.provide(lab, guests.named("guest1"))


def test_apt_reads_and_writes_nothing_of_the_machine_s_but_its_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []

    def call(argv: list[Any], **_: object) -> str:
        called.append([str(word) for word in argv])
        return OLD

    monkeypatch.setattr(outer, "call", call)
    (tmp_path / "root/lib").mkdir(parents=True)
    kernels.fetch(tmp_path / "apt", tmp_path / "root", ("trixie-backports", "sid"), MIRROR)
    assert (tmp_path / "apt/sources.list").read_text().splitlines() == [
        f"deb {MIRROR} trixie-backports main",
        f"deb {MIRROR} sid main",
    ]
    for argv in called:
        for name in ("Dir::Etc::SourceList", "Dir::State", "Dir::Cache"):
            assert any(word.startswith(f"-o{name}={tmp_path}/apt") for word in argv), argv
    assert called[-1][-1] == "linux-image-5.10.0-32-amd64"
