"""What of a host a guest's definition is bound to."""

from pathlib import Path

import pytest

from vferry.host.resources import locked_limit, missing
from vferry.model.definition import parse

VF = "<devices><hostdev mode='subsystem' type='pci'/></devices>"
HUGE = "<memoryBacking><hugepages>{}</hugepages></memoryBacking>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with four processors, two nodes, 512 MiB of huge pages free, and a libvirtd that may lock what it will."""
    write(tmp_path, "sys/devices/system/cpu/online", "0-3\n")
    write(tmp_path, "sys/devices/system/node/online", "0-1\n")
    write(tmp_path, "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "256\n")
    write(tmp_path, "sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "0\n")
    write(tmp_path, "proc/meminfo", "MemTotal: 100 kB\nHugepagesize:       2048 kB\n")
    write(tmp_path, "run/libvirtd.pid", "77\n")
    write(tmp_path, "proc/77/status", "Name:\tlibvirtd\nCapEff:\t000001ffffffffff\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def found(root: Path, inner: str, mib: int = 256) -> list[str]:
    return list(missing(root, parse(f"<domain><memory unit='MiB'>{mib}</memory>{inner}</domain>")))


@pytest.mark.parametrize(
    ("inner", "mib", "words"),
    [
        (HUGE.format(""), 1024, "1024 MiB in huge pages of 2048 KiB, of which 512 MiB"),
        (HUGE.format("<page size='1' unit='G'/>"), 256, "huge pages of 1048576 KiB, of which 0 MiB"),
        ("<vcpu cpuset='2-5,^4'>2</vcpu>", 256, "processors that are not online here: 5"),
        ("<vcpu cpuset='9000'>1</vcpu>", 256, "processors that are not online here: 9000"),
        ("<cputune><vcpupin vcpu='0' cpuset='8'/><emulatorpin cpuset='9'/></cputune>", 256, "here: 8, 9"),
        ("<numatune><memory mode='strict' nodeset='0,2'/></numatune>", 256, "NUMA nodes that are not here: 2"),
        ("<devices><tpm><backend type='emulator'/></tpm></devices>", 256, "swtpm is not on this host"),
    ],
)
def test_what_a_host_lacks_is_said(root: Path, inner: str, mib: int, words: str) -> None:
    (reason,) = found(root, inner, mib)
    assert words in reason


@pytest.mark.parametrize(
    "inner",
    [
        "",
        VF,
        HUGE.format(""),
        HUGE.format("<page size='2048' unit='KiB' nodeset='0'/>"),
        "<vcpu cpuset='0-3'>2</vcpu><cputune><vcpupin vcpu='0' cpuset='3'/><shares>5</shares></cputune>",
        "<numatune><memory mode='strict' nodeset='1'/><memnode cellid='0' mode='strict' nodeset='0'/></numatune>",
    ],
)
def test_what_is_there_is_enough(root: Path, inner: str) -> None:
    assert found(root, inner) == []


def test_a_tpm_that_is_emulated_here_too(root: Path) -> None:
    write(root, "usr/bin/swtpm", "")
    assert found(root, "<devices><tpm><backend type='emulator'/></tpm></devices>") == []


def test_a_libvirt_that_may_not_lock_enough(root: Path) -> None:
    write(root, "proc/77/status", "CapEff:\t0000000000000000\n")
    write(root, "proc/77/limits", "Max locked memory         67108864   1073741824   bytes\n")
    assert locked_limit(root) == 1 << 30
    assert "may lock 1024 MiB here" in found(root, VF)[0]
    assert found(root, "") == []
    write(root, "proc/77/limits", "Max locked memory         unlimited            unlimited            bytes\n")
    assert found(root, VF) == []


def test_a_host_that_says_nothing_locks_what_it_will(tmp_path: Path) -> None:
    assert locked_limit(tmp_path) is None
