"""A VF goes from driver to driver: a tree of files, and a kernel that reacts to what is written to it."""

import errno
from pathlib import Path

import pytest

from vferry.host.api import BindVf
from vferry.host.sriov import vf_driver
from vferry.host.vf_driver import bind_vf
from vferry.model.problem import Problem

VF = "0000:01:10.0"
OTHER = "0000:01:10.1"


class Kernel:
    """Two VFs with igbvf, which is loaded as vfio-pci is; `refuses` are drivers that take none."""

    def __init__(self, root: Path, driver: str | None = "igbvf") -> None:
        self.pci = root / "sys/bus/pci"
        self.refuses: set[str] = set()
        self.fails: set[str] = set()
        for name in ("igbvf", "vfio-pci"):
            (self.pci / "drivers" / name).mkdir(parents=True)
        for address in (VF, OTHER):
            device = self.pci / "devices" / address
            device.mkdir(parents=True)
            (device / "driver_override").write_text("(null)\n")
            (device / "physfn").symlink_to(device)
            if driver:
                (device / "driver").symlink_to(self.pci / "drivers" / driver)

    def override(self, address: str = VF) -> str:
        return (self.pci / "devices" / address / "driver_override").read_text().strip()

    def __call__(self, path: Path, text: str) -> None:
        if path.name in self.fails:
            raise OSError(errno.EBUSY, "Device or resource busy")
        if path.name == "driver_override":
            path.write_text(text)
        elif path.name == "unbind":
            (self.pci / "devices" / text / "driver").unlink()
        elif path.name == "drivers_probe":
            wanted = self.override(text)
            driver = "igbvf" if wanted in ("", "(null)") else wanted
            if driver not in self.refuses:
                (self.pci / "devices" / text / "driver").symlink_to(self.pci / "drivers" / driver)
        else:
            raise AssertionError(path)


@pytest.mark.parametrize("before", ["igbvf", None])
def test_there_and_back(tmp_path: Path, before: str | None) -> None:
    kernel = Kernel(tmp_path, before)
    assert bind_vf(tmp_path, BindVf(address=VF, driver="vfio-pci"), kernel).changed
    assert (vf_driver(tmp_path, VF), kernel.override()) == ("vfio-pci", "vfio-pci")
    assert not bind_vf(tmp_path, BindVf(address=VF, driver="vfio-pci"), kernel).changed
    assert bind_vf(tmp_path, BindVf(address=VF, driver=before), kernel).changed
    assert (vf_driver(tmp_path, VF), kernel.override()) == (before, "")
    assert vf_driver(tmp_path, OTHER) == before


@pytest.mark.parametrize("before", ["igbvf", None])
def test_a_driver_that_does_not_take_it(tmp_path: Path, before: str | None) -> None:
    kernel = Kernel(tmp_path, before)
    kernel.refuses.add("vfio-pci")
    with pytest.raises(Problem, match="does not go to vfio-pci: it is with none") as caught:
        bind_vf(tmp_path, BindVf(address=VF, driver="vfio-pci"), kernel)
    assert caught.value.code == "driver-refused"
    assert (vf_driver(tmp_path, VF), kernel.override()) == (before, "")


def test_one_that_is_not_loaded(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    (kernel.pci / "drivers/vfio-pci").rmdir()
    with pytest.raises(Problem, match="not loaded") as caught:
        bind_vf(tmp_path, BindVf(address=VF, driver="vfio-pci"), kernel)
    assert "modprobe vfio-pci" in caught.value.remedy
    assert kernel.override() == "(null)"


def test_what_the_kernel_says_is_passed_on(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.fails.add("unbind")
    with pytest.raises(Problem, match="Device or resource busy"):
        bind_vf(tmp_path, BindVf(address=VF, driver="vfio-pci"), kernel)
    assert (vf_driver(tmp_path, VF), kernel.override()) == ("igbvf", "")


def test_where_nothing_helps_it_is_said(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.fails.add("drivers_probe")
    with pytest.raises(Problem, match="nor is it as before"):
        bind_vf(tmp_path, BindVf(address=VF, driver="vfio-pci"), kernel)


def test_only_vfs(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    (kernel.pci / "devices" / VF / "physfn").unlink()
    for address in (VF, "0000:09:00.0"):
        with pytest.raises(Problem) as caught:
            bind_vf(tmp_path, BindVf(address=address, driver="vfio-pci"), kernel)
        assert caught.value.code == "vf-unknown"
