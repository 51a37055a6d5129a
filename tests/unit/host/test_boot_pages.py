import shutil
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from vferry.host.boot_pages import FILE, set_boot_pages
from vferry.model.relay import HugePages, Relay, RelayKind, RelayState

RELAY = Relay(
    operation="relay-1",
    state=RelayState.ENABLED,
    kind=RelayKind.DIRECT,
    uplinks=("pf0",),
    cores=(1,),
    pages=(HugePages(node=1, size_kib=2048, count=612, before=100),),
)


def test_there_and_back(tmp_path: Path) -> None:
    (tmp_path / "sys/devices/system/node/node0").mkdir(parents=True)
    path = tmp_path / FILE
    path.parent.mkdir(parents=True)
    assert set_boot_pages(tmp_path, replace(RELAY, state=RelayState.ENABLING)) == ""
    assert not path.exists()
    for _ in range(2):
        assert set_boot_pages(tmp_path, RELAY) == ""
    said, sockets, line = path.read_text().splitlines()
    assert said.startswith("#")
    assert sockets == "d /run/vferry-relay 0755 - - - -"
    assert line == "w /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages - - - - 612"
    assert path.stat().st_mode & 0o777 == 0o644
    assert set_boot_pages(tmp_path, replace(RELAY, state=RelayState.DISABLING)) == ""
    assert not path.exists()
    assert set_boot_pages(tmp_path, None) == ""


@pytest.mark.parametrize("kind", list(RelayKind))
def test_guests_find_the_directory_of_their_sockets_before_the_agent_is_up(tmp_path: Path, kind: RelayKind) -> None:
    for path, text in ((tmp_path / "etc/passwd", "libvirt-qemu:x:64055:994::/:/bin/false\n"), (tmp_path / FILE, "")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert set_boot_pages(tmp_path, replace(RELAY, pages=(), kind=kind)) == ""
    assert (tmp_path / FILE).read_text().splitlines()[1:] == ["d /run/vferry-relay 0755 64055 - - -"]


def test_where_it_cannot_be_that_is_said(tmp_path: Path) -> None:
    assert "cannot be written (No such file" in set_boot_pages(tmp_path, RELAY)
    for without in (None, replace(RELAY, state=RelayState.DISABLING)):
        assert set_boot_pages(tmp_path, without) == ""
    (tmp_path / FILE).mkdir(parents=True)
    assert "cannot be written" in set_boot_pages(tmp_path, None)


@pytest.mark.skipif(shutil.which("systemd-tmpfiles") is None, reason="needs systemd-tmpfiles")
def test_systemd_does_what_it_says(tmp_path: Path) -> None:
    pool = tmp_path / "sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"
    for path in (pool, tmp_path / FILE, tmp_path / "sys/devices/system/node/node0/cpulist"):
        path.parent.mkdir(parents=True)
    pool.write_text("100\n")
    assert set_boot_pages(tmp_path, RELAY) == ""
    subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--create", str(tmp_path / FILE)], check=True)
    assert pool.read_text().split() == ["612"]
