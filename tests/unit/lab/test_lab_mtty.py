"""The module for guests with a device that migrates itself, and how hosts get it."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from vferry.lab import base, guests, hosts, mtty, owner, reach
from vferry.lab.layers import HostLayers, Layers
from vferry.lab.release import DEBIAN13
from vferry.lab.topology import HOSTS, Host
from vferry.model.problem import Problem


class FakeLab:
    folder = Path("/lab")

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.ran: list[tuple[str, list[str]]] = []

    def run(self, host: str, argv: list[str]) -> subprocess.CompletedProcess[str]:
        self.ran.append((host, argv))
        return subprocess.CompletedProcess(argv, self.code, "", "no space")


@pytest.fixture
def layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that is built, and hosts that are shells of this machine."""
    (tmp_path / "mtty.ko").write_bytes(b"\x7fELF")
    own = {host.name: HostLayers(13, str(tmp_path), "/product") for host in HOSTS}
    who = owner.Owner("/clone", "now", Layers(str(tmp_path), own))
    monkeypatch.setattr(owner, "current", lambda: who)
    monkeypatch.setattr(mtty, "ensure", lambda _release, ground: ground)
    monkeypatch.setattr(hosts, "running", lambda: list(HOSTS))

    def here(host: Host, _folder: Path, argv: list[str]) -> list[str]:
        return ["sh", "-c", f"cat > {tmp_path}/{host.name}.ko; echo {argv[0]}"]

    monkeypatch.setattr(reach, "command", here)
    return tmp_path


def test_all_hosts_get_the_module_and_one_the_device(layer: Path) -> None:
    lab: Any = FakeLab()
    guest = guests.named("mtty1")
    mtty.provide(lab, guest, "host2")
    assert [(layer / f"{host.name}.ko").read_bytes() for host in HOSTS] == [b"\x7fELF"] * 2
    ((host, argv),) = lab.ran
    assert (host, argv[-1]) == ("host2", guest.device)


def test_a_host_that_makes_no_device_is_a_problem(layer: Path) -> None:
    lab: Any = FakeLab(code=1)
    with pytest.raises(Problem, match="no space") as caught:
        mtty.provide(lab, guests.named("mtty1"), "host2")
    assert caught.value.code == "lab-no-device"


def test_no_module_for_a_lab_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    lab: Any = FakeLab()
    monkeypatch.setattr(owner, "current", lambda: None)
    with pytest.raises(Problem) as caught:
        mtty.provide(lab, guests.named("mtty1"), "host1")
    assert caught.value.code == "lab-down"


def test_the_module_follows_the_kernel_that_the_hosts_have() -> None:
    mirror = "http://a.test/debian"
    assert mtty.key(Path("/cache/base-1"), mirror) != mtty.key(Path("/cache/base-2"), mirror)
    assert mtty.key(Path("/cache/base-1"), mirror) != base.key(DEBIAN13, mirror)
