"""What the disks of guests with a system of their own are, and what tells them what to be."""

import configparser
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.lab import base, cloud, guests, iso, keyfile, outer, owner, places, product, seed
from vferry.lab.layers import Layers
from vferry.lab.release import DEBIAN13
from vferry.lab.topology import GUESTS
from vferry.model.problem import Problem

NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20)


def files(image: bytes) -> dict[str, str]:
    """The files in an image's root, read by the numbers in it."""
    root = int.from_bytes(image[16 * 2048 + 158 : 16 * 2048 + 162], "little") * 2048
    found, at = {}, root
    while image[at]:
        record = image[at : at + image[at]]
        sector, size = int.from_bytes(record[2:6], "little"), int.from_bytes(record[10:14], "little")
        if not record[25] & 2:
            name = record[33 : 33 + record[32]].decode()
            found[name] = image[sector * 2048 : sector * 2048 + size].decode()
        at += image[at]
    return found


@given(st.dictionaries(NAMES, st.text(max_size=5000), max_size=8))
def test_an_image_gives_back_its_files(wanted: dict[str, str]) -> None:
    image = iso.image("label", wanted)
    assert files(image) == wanted
    assert len(image) == 2048 * int.from_bytes(image[16 * 2048 + 80 : 16 * 2048 + 84], "little")


def test_too_many_names_are_refused() -> None:
    with pytest.raises(ValueError, match="one sector"):
        iso.image("label", {f"{number:030}": "" for number in range(100)})


@pytest.mark.skipif(not shutil.which("blkid", path=os.defpath + ":/usr/sbin:/sbin"), reason="no blkid")
def test_an_image_is_found_by_its_label(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(iso.image(seed.LABEL, {"a": "b"}))
    done = subprocess.run(
        ["/sbin/blkid", "-p", "-o", "export", tmp_path / "image"], capture_output=True, text=True, check=True
    )
    assert {"TYPE=iso9660", "LABEL=cidata"} <= set(done.stdout.splitlines())


def test_the_seed_names_the_nic_by_its_mac() -> None:
    read = files(seed.image(guests.named("cloud1")))
    assert read["user-data"].startswith("#cloud-config\n")
    assert json.loads(read["meta-data"])["local-hostname"] == "cloud1"
    nic = json.loads(read["network-config"])["ethernets"]["eth0"]
    assert nic["match"] == {"macaddress": "52:54:00:aa:00:10"}
    assert nic["set-name"] == "eth0"
    assert nic["addresses"] == ["10.9.0.16/24", "fd00:9::16/64"]


def test_a_cloud_guest_has_time_to_boot() -> None:
    assert [guest.name for guest in GUESTS if guest.own_system] == ["cloud1", "nm1"]
    assert [guest.name for guest in GUESTS if guest.seeded] == ["cloud1"]
    for guest in filter(lambda guest: guest.own_system, GUESTS):
        assert guest.answer_bound > guests.named("guest1").answer_bound


MIRROR = "http://a.test/debian"
IMAGES = [cloud.image(guest) for guest in GUESTS if guest.own_system]


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.layer)
def test_the_image_follows_the_kernel_that_the_hosts_have(image: cloud.Image) -> None:
    key = cloud.key(image, Path("/cache/base-1"), MIRROR)
    assert key != cloud.key(image, Path("/cache/base-2"), MIRROR)
    assert key != base.key(DEBIAN13, MIRROR)


def test_each_image_is_a_layer_of_its_own() -> None:
    assert len({image.layer for image in IMAGES}) == len(IMAGES)
    assert len({cloud.key(image, Path("/cache/base-1"), MIRROR) for image in IMAGES}) == len(IMAGES)


def test_the_one_has_network_manager_and_the_other_what_a_cloud_has() -> None:
    of_cloud, of_nm = IMAGES
    assert {"netplan.io", "cloud-init"} <= set(of_cloud.packages)
    assert "network-manager" in of_nm.packages
    assert not {"network-manager", "netplan.io", "cloud-init", "systemd-resolved"} & {*cloud.SHARED}
    assert not {"netplan.io", "cloud-init", "systemd-resolved"} & {*of_nm.packages}


def test_a_profile_is_bound_to_the_nic_and_names_the_servers() -> None:
    profile = configparser.ConfigParser()
    profile.read_string(keyfile.profile(guests.named("nm1")))
    assert profile["ethernet"]["mac-address"] == "52:54:00:aa:00:16"
    assert [profile[family]["address1"] for family in ("ipv4", "ipv6")] == ["10.9.0.22/24", "fd00:9::22/64"]
    assert [profile[family]["gateway"] for family in ("ipv4", "ipv6")] == ["10.9.0.1", "fd00:9::1"]
    assert [profile[family]["dns"] for family in ("ipv4", "ipv6")] == ["10.9.0.1;", "fd00:9::1;"]


def test_a_finished_root_has_a_profile_that_only_root_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, ground = tmp_path / "root", tmp_path / "ground"
    for folder in ("etc/default", "etc/udev/rules.d", "etc/NetworkManager/system-connections", "usr/local/sbin"):
        (root / folder).mkdir(parents=True)
    (root / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    (ground / "usr/lib/modules/6.12-amd64").mkdir(parents=True)
    (ground / "lib").symlink_to("usr/lib")
    monkeypatch.setattr(outer, "call", lambda argv, **_: pytest.fail(f"nothing is to be enabled: {argv}"))
    cloud.finish(root, cloud.image(guests.named("nm1")), ground)
    assert (root / keyfile.PLACE).read_text() == keyfile.profile(guests.named("nm1"))
    assert (root / keyfile.PLACE).stat().st_mode & 0o777 == 0o600
    assert not (root / "etc/resolv.conf").exists()
    assert (root / "usr/lib/modules/6.12-amd64").is_dir()


@pytest.mark.parametrize(("name", "image"), [("cloud1", "cloud"), ("nm1", "nm")])
def test_a_disk_is_filled_once_and_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, image: str
) -> None:
    guest = guests.named(name)
    disk = tmp_path / guest.disk
    layer = tmp_path / "cloud-1"
    layer.mkdir()
    (layer / "disk.img").write_bytes(bytes(2**20) + b"system" + bytes(2**20))
    asked: list[tuple[str, Path]] = []

    def ensure(wanted: cloud.Image, ground: Path) -> Path:
        asked.append((wanted.layer, ground))
        return layer

    monkeypatch.setattr(cloud, "ensure", ensure)
    who = owner.Owner("/clone", "now", Layers(str(tmp_path), {}))
    monkeypatch.setattr(owner, "current", lambda: who)
    cloud.blank(guest, disk)
    before = disk.stat()
    with disk.open("rb") as opened:  # as the hosts' emulators have it
        cloud.provide(guest, tmp_path)
        cloud.provide(guest, tmp_path)
        opened.seek(2**20)
        assert opened.read(6) == b"system"
    assert asked == [(image, tmp_path)]
    assert (disk.stat().st_ino, disk.stat().st_size) == (before.st_ino, before.st_size)
    cloud.blank(guest, disk)
    cloud.provide(guest, tmp_path)
    assert len(asked) == 2


def test_no_disk_is_filled_for_a_lab_that_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "current", lambda: None)
    with pytest.raises(Problem) as caught:
        cloud.provide(guests.named("cloud1"), tmp_path)
    assert caught.value.code == "lab-down"


def test_what_only_the_hosts_boot_depends_on_is_part_of_their_frame() -> None:
    lab = places.PACKAGE / "lab"
    assert {lab / "seed.py", lab / "iso.py", places.FILES / "disk-init"} <= set(product.framing())
