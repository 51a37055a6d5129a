"""Mediated devices: a kernel's sysfs in a folder, where a device appears when its UUID is written."""

import shutil
from pathlib import Path

import pytest
from fake_libvirt import FakeDomain, FakeLibvirt
from msgspec.structs import replace
from xml_samples import MDEV, MEDIATED, domain

from vferry.host import mediated
from vferry.host.api import Done, SetMdev
from vferry.host.hypervisor import Hypervisor
from vferry.host.hypervisor_guests import describe, guest_of
from vferry.model.guest import HostDevice
from vferry.model.host import Mdev, MdevType
from vferry.model.problem import Problem

WANTED = SetMdev(guest="guest1", uuid=MDEV, kind="mtty-2", parent="mtty", present=True)
GONE = replace(WANTED, present=False)
PARENT = "sys/devices/virtual/mtty/mtty"


class Kernel:
    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        for name, available in (("mtty-1", "24"), ("mtty-2", "12")):
            folder = root / PARENT / "mdev_supported_types" / name
            folder.mkdir(parents=True)
            (folder / "available_instances").write_text(f"{available}\n")
        for place in (mediated.BUS, mediated.PARENTS):
            (root / place).mkdir(parents=True)
        (root / mediated.PARENTS / "mtty").symlink_to(root / PARENT)
        self.written: list[tuple[str, str]] = []
        self.refuses = False
        monkeypatch.setattr(Path, "write_text", lambda path, text: self.write(path, text))

    def add(self, uuid: str, kind: str) -> None:
        (self.root / PARENT / uuid).mkdir()
        (self.root / PARENT / uuid / "mdev_type").symlink_to(f"../mdev_supported_types/{kind}")
        (self.root / mediated.BUS / uuid).symlink_to(self.root / PARENT / uuid)

    def write(self, path: Path, text: str) -> int:
        if self.refuses:
            raise OSError(28, "No space left on device")
        self.written.append((str(path.relative_to(self.root)), text))
        if path.name == "create":
            self.add(text, path.parent.name)
        else:
            shutil.rmtree(path.parent.resolve())
            path.parent.unlink()
        return len(text)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(tmp_path, monkeypatch)


def hypervisor(*domains: FakeDomain) -> Hypervisor:
    return Hypervisor(library=FakeLibvirt(*domains))


def test_what_a_host_offers_and_has(kernel: Kernel) -> None:
    kernel.add(MDEV, "mtty-2")
    assert mediated.read_types(kernel.root) == (
        MdevType(name="mtty-1", parent="mtty", available=24),
        MdevType(name="mtty-2", parent="mtty", available=12),
    )
    assert mediated.read_mdevs(kernel.root) == (Mdev(uuid=MDEV, type="mtty-2", parent="mtty"),)


def test_a_host_without_any_has_none(tmp_path: Path) -> None:
    assert mediated.read_types(tmp_path) == ()
    assert mediated.read_mdevs(tmp_path) == ()


def test_one_is_made_and_removed_once(kernel: Kernel) -> None:
    libvirt = hypervisor()
    assert mediated.set_mdev(libvirt, kernel.root, WANTED) == Done()
    assert mediated.set_mdev(libvirt, kernel.root, WANTED) == Done(changed=False)
    assert mediated.set_mdev(libvirt, kernel.root, GONE) == Done()
    assert mediated.set_mdev(libvirt, kernel.root, GONE) == Done(changed=False)
    assert kernel.written == [
        ("sys/class/mdev_bus/mtty/mdev_supported_types/mtty-2/create", MDEV),
        (f"sys/bus/mdev/devices/{MDEV}/remove", "1"),
    ]


@pytest.mark.parametrize("wanted", [WANTED, GONE])
def test_one_of_another_type_is_left_alone(kernel: Kernel, wanted: SetMdev) -> None:
    kernel.add(MDEV, "mtty-1")
    with pytest.raises(Problem) as caught:
        mediated.set_mdev(hypervisor(), kernel.root, wanted)
    assert caught.value.code == "mdev-differs"
    assert kernel.written == []


def test_one_that_the_guest_runs_with_is_not_removed(kernel: Kernel) -> None:
    kernel.add(MDEV, "mtty-2")
    libvirt = hypervisor(FakeDomain(live=domain(MEDIATED)))
    assert mediated.set_mdev(libvirt, kernel.root, WANTED) == Done(changed=False)
    with pytest.raises(Problem) as caught:
        mediated.set_mdev(libvirt, kernel.root, GONE)
    assert caught.value.code == "mdev-in-use"
    assert kernel.written == []


def test_the_guest_that_has_left_does_not_keep_it(kernel: Kernel) -> None:
    kernel.add(MDEV, "mtty-2")
    assert mediated.set_mdev(hypervisor(FakeDomain(persistent=domain(MEDIATED))), kernel.root, GONE) == Done()


@pytest.mark.parametrize("wanted", [WANTED, GONE])
def test_another_guest_s_is_left_alone(kernel: Kernel, wanted: SetMdev) -> None:
    kernel.add(MDEV, "mtty-2")
    with pytest.raises(Problem) as caught:
        mediated.set_mdev(hypervisor(FakeDomain(persistent=domain(MEDIATED, name="other"))), kernel.root, wanted)
    assert caught.value.code == "mdev-in-use"


def test_the_kernel_s_refusal_is_told(kernel: Kernel) -> None:
    kernel.refuses = True
    with pytest.raises(Problem, match="No space left on device") as caught:
        mediated.set_mdev(hypervisor(), kernel.root, WANTED)
    assert caught.value.code == "mdev-refused"


def test_a_guest_shows_its_devices(kernel: Kernel) -> None:
    kernel.add(MDEV, "mtty-2")
    one = FakeDomain(live=domain(MEDIATED))
    guest = guest_of(describe(hypervisor(one), one, kernel.root), "host1", (), mediated.read_mdevs(kernel.root))
    assert guest.nics == ()
    assert guest.devices == (HostDevice(kind="mdev", name=MDEV, alias="ua-serial", type="mtty-2"),)
