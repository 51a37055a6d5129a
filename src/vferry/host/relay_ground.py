"""What this host has that a relay needs: NUMA nodes with their huge pages, vfio-pci, Open vSwitch. It only looks."""

import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from vferry.host.cpus import read_cpus
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.sysfs import read_file
from vferry.model.relay import NumaNode, PagePool, RelayGround

NODES = "sys/devices/system/node"
POOL = re.compile(r"hugepages-(\d{1,9})kB")
FREE = re.compile(r"MemFree:\s+(\d+) kB")


def read_ground(root: Path, pfs: Iterable[str]) -> RelayGround:
    """Reads sysfs and procfs, and asks Open vSwitch."""
    return RelayGround(
        nodes=tuple(_nodes(root)),
        pf_nodes={pf: _node_of(root, pf) for pf in pfs},
        isolated=read_cpus(read_file(root / "sys/devices/system/cpu/isolated")),
        siblings=_siblings(root),
        vfio=(root / "sys/bus/pci/drivers/vfio-pci").is_dir(),
        library=find_spec("ovs") is not None,
        switch=OpenVSwitch(root).abilities(),
    )


def pool_path(root: Path, node: int, size_kib: int) -> Path:
    """The directory of a NUMA node's huge pages of one size; the host's own where the kernel knows no nodes."""
    name = f"hugepages-{size_kib}kB"
    if (root / NODES / "node0").is_dir():
        return root / NODES / f"node{node}" / "hugepages" / name
    return root / "sys/kernel/mm/hugepages" / name


def read_number(path: Path) -> int:
    """0 where it is not there."""
    text = read_file(path)
    return int(text) if text.isdigit() else 0


def own_pages(pool: Path) -> int:
    """The pages of a pool's folder that are set aside, without those that only stay until whoever has them goes."""
    return read_number(pool / "nr_hugepages") - read_number(pool / "surplus_hugepages")


def _nodes(root: Path) -> Iterator[NumaNode]:
    found = sorted(int(path.name[4:]) for path in (root / NODES).glob("node[0-9]*"))
    for number in found:
        path = root / NODES / f"node{number}"
        free = FREE.search(read_file(path / "meminfo"))
        yield NumaNode(
            number=number,
            cpus=read_cpus(read_file(path / "cpulist")),
            memory_free=int(free[1]) << 10 if free else 0,
            pools=tuple(_pools(path / "hugepages")),
        )
    if not found:
        free = FREE.search(read_file(root / "proc/meminfo"))
        yield NumaNode(
            number=0,
            cpus=read_cpus(read_file(root / "sys/devices/system/cpu/online")),
            memory_free=int(free[1]) << 10 if free else 0,
            pools=tuple(_pools(root / "sys/kernel/mm/hugepages")),
        )


def _pools(directory: Path) -> Iterator[PagePool]:
    sizes = sorted(int(found[1]) for path in directory.glob("*") if (found := POOL.fullmatch(path.name)))
    for size in sizes:
        path = directory / f"hugepages-{size}kB"
        yield PagePool(size_kib=size, total=own_pages(path), free=read_number(path / "free_hugepages"))


def _node_of(root: Path, pf: str) -> int:
    """-1 is what a kernel says that knows no nodes, or firmware that does not say."""
    return read_number(root / "sys/class/net" / pf / "device/numa_node")


def _siblings(root: Path) -> tuple[tuple[int, ...], ...]:
    found = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list")
    return tuple(sorted({cpus for path in found if len(cpus := read_cpus(read_file(path))) > 1}))
