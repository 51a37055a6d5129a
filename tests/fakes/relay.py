"""A host that could have a relay, for the tests of plans: all that it needs, to be taken from it one by one."""

from typing import Any

from msgspec.structs import replace

from vferry.model.guest import Guest, GuestState
from vferry.model.host import Inventory, MigrationEndpoint, Network, Pf, Versions, Vf, VfSettings
from vferry.model.relay import NumaNode, PagePool, RelayGround, SwitchAbilities

GIB = 1 << 30
NO_DPDK_YET = SwitchAbilities(version="3.5.0", dpdk_version="DPDK 24.11.1")
SETTINGS = VfSettings(trust=False, spoof_check=True)


def make_vf(pf: str, index: int, **differing: Any) -> Vf:
    number = int(pf[-1]) + 1
    usual: dict[str, Any] = {"iommu_group": 10 * number + index, "settings": SETTINGS}
    return Vf(pf=pf, index=index, address=f"0000:0{number}:10.{index}", **(usual | differing))


def make_pf(name: str, vfs: int = 2, **differing: Any) -> Pf:
    number = int(name[-1]) + 1
    made = tuple(make_vf(name, index) for index in range(vfs))
    usual: dict[str, Any] = {"driver": "igb", "mac": f"52:54:00:00:00:0{number}", "vfs": made}
    return Pf(name=name, address=f"0000:0{number}:00.0", **(usual | differing))


def make_node(number: int, cpus: tuple[int, ...], free: int = 8 * GIB, total: int = 0, unused: int = 0) -> NumaNode:
    pools = (PagePool(size_kib=2048, total=total, free=unused), PagePool(size_kib=1 << 20))
    return NumaNode(number=number, cpus=cpus, memory_free=free, pools=pools)


def make_guest(name: str, *pinned: int) -> Guest:
    """Each of its threads is pinned to one of these CPUs."""
    return pinned_to(name, *((cpu,) for cpu in pinned))


def pinned_to(name: str, *pins: tuple[int, ...]) -> Guest:
    """Each of its threads is pinned to one of these sets of CPUs."""
    together = tuple(sorted({cpu for cpus in pins for cpu in cpus}))
    return Guest(name=name, uuid=name, host="host1", state=GuestState.RUNNING, pinned=together, pins=pins)


GROUND = RelayGround(
    nodes=(make_node(0, tuple(range(8))), make_node(1, tuple(range(8, 16)))),
    pf_nodes={"pf0": 0, "pf1": 0, "pf2": 1},
    vfio=True,
    library=True,
    switch=NO_DPDK_YET,
)

HOST = Inventory(
    name="host1",
    versions=Versions(vferry="0", kernel="6", qemu=(11, 0, 0), libvirt=(11, 0, 0)),
    migration=MigrationEndpoint(address="10.8.0.1", ports=(1, 2)),
    networks={"a": Network(pf="pf0", more_pfs=("pf1",)), "b": Network(pf="pf2")},
    pfs=(make_pf("pf0"), make_pf("pf1"), make_pf("pf2")),
    iommu=True,
    relay_ground=GROUND,
)


def on_ground(host: Inventory = HOST, **differing: Any) -> Inventory:
    """The host on other ground."""
    return replace(host, relay_ground=replace(host.relay_ground, **differing))


def with_switch(host: Inventory = HOST, **differing: Any) -> Inventory:
    """The host with another Open vSwitch."""
    return on_ground(host, switch=replace(host.relay_ground.switch or NO_DPDK_YET, **differing))


def with_pf(host: Inventory, name: str, **differing: Any) -> Inventory:
    """The host with one PF changed."""
    return replace(host, pfs=tuple(replace(pf, **differing) if pf.name == name else pf for pf in host.pfs))
