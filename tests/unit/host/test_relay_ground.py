"""What of a host a relay could be made, read from a tree like the kernel's."""

from pathlib import Path

from vferry.host.relay_ground import pool_path, read_ground
from vferry.model.relay import NumaNode, PagePool

MIB = 1 << 20


def write(root: Path, **files: str) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")


def make_node(root: Path, number: int, cpus: str, pools: dict[int, tuple[int, int]]) -> None:
    node = f"sys/devices/system/node/node{number}"
    write(root, **{f"{node}/cpulist": cpus, f"{node}/meminfo": f"Node {number} MemFree:      2097152 kB"})
    for size, (total, free) in pools.items():
        pool = f"{node}/hugepages/hugepages-{size}kB"
        write(root, **{f"{pool}/nr_hugepages": str(total), f"{pool}/free_hugepages": str(free)})


def test_two_nodes(tmp_path: Path) -> None:
    make_node(tmp_path, 0, "0-3", {2048: (512, 500), 1048576: (0, 0)})
    make_node(tmp_path, 1, "4-7", {2048: (0, 0)})
    write(
        tmp_path,
        **{
            "sys/class/net/pf0/device/numa_node": "1",
            "sys/class/net/pf1/device/numa_node": "-1",
            "sys/devices/system/cpu/isolated": "6-7",
            "sys/devices/system/cpu/cpu0/topology/thread_siblings_list": "0,4",
            "sys/devices/system/cpu/cpu4/topology/thread_siblings_list": "0,4",
            "sys/devices/system/cpu/cpu1/topology/thread_siblings_list": "1",
        },
    )
    ground = read_ground(tmp_path, ("pf0", "pf1"))
    assert ground.nodes == (
        NumaNode(
            number=0,
            cpus=(0, 1, 2, 3),
            memory_free=2048 * MIB,
            pools=(PagePool(size_kib=2048, total=512, free=500), PagePool(size_kib=1048576)),
        ),
        NumaNode(number=1, cpus=(4, 5, 6, 7), memory_free=2048 * MIB, pools=(PagePool(size_kib=2048),)),
    )
    assert ground.pf_nodes == {"pf0": 1, "pf1": 0}
    assert ground.isolated == (6, 7)
    assert ground.siblings == ((0, 4),)
    assert (ground.vfio, ground.switch) == (False, None)
    assert ground.node(1) == ground.nodes[1]
    assert ground.node(2) is None


def test_a_kernel_without_nodes(tmp_path: Path) -> None:
    write(
        tmp_path,
        **{
            "sys/devices/system/cpu/online": "0-1",
            "proc/meminfo": "MemFree:         4096 kB",
            "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "7",
            "sys/kernel/mm/hugepages/hugepages-2048kB/surplus_hugepages": "4",
            "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "2",
        },
    )
    (node,) = read_ground(tmp_path, ()).nodes
    assert node == NumaNode(
        number=0, cpus=(0, 1), memory_free=4 * MIB, pools=(PagePool(size_kib=2048, total=3, free=2),)
    )
    assert pool_path(tmp_path, 0, 2048) == tmp_path / "sys/kernel/mm/hugepages/hugepages-2048kB"


def test_nothing_is_there(tmp_path: Path) -> None:
    assert read_ground(tmp_path, ("pf0",)).nodes == (NumaNode(number=0),)


def test_vfio(tmp_path: Path) -> None:
    (tmp_path / "sys/bus/pci/drivers/vfio-pci").mkdir(parents=True)
    assert read_ground(tmp_path, ()).vfio
