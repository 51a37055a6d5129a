"""What a relay is made of on a host: how much memory, which VFs, what is set of its switch."""

from collections.abc import Collection, Iterable

from msgspec import Struct

from vferry.model.host import Inventory, Pf, Vf
from vferry.model.relay import HugePages, NumaNode, RelayBridge, RelayGround, RelayUplink, RelayVf
from vferry.model.switch import CPUS
from vferry.plan.facts import Refusal
from vferry.plan.relay_cpus import node_of
from vferry.plan.relay_needs import OWN_DRIVER

MEMORY_MIB = (1024, 512, 256)
"""What each NUMA node with an uplink gets, the most that half of its free memory allows."""
KEPT_SHARE = 2
SLEEP_US = "200"
"""The longest that a core sleeps when there is little to do: 17 % of it were then used in the lab."""
NO_DEVICE = "-a 0000:00:00.0"
"""An allow-list of nothing: DPDK would open every VF on vfio-pci that no guest has at the moment."""


def choose_vf(host: Inventory, pf: Pf, taken: Collection[str] = ()) -> RelayVf:
    """A free VF, one without an interface if there is such; not one of `taken`, PCI addresses. Raises `Refusal`."""
    free = [vf for vf in pf.vfs if vf.guest is None and vf.claim is None and vf.address not in taken]
    if not free:
        raise Refusal(
            "relay-no-vf",
            f"{host.name} has no free VF on {pf.name}: all {len(pf.vfs)} are taken",
            f"Free one, or make more: {_more_vfs(pf)}",
        )
    shares = pf.driver in OWN_DRIVER
    grouped = free if shares else [vf for vf in free if vf.iommu_group is not None]
    if not grouped:
        raise Refusal(
            "relay-no-iommu-group",
            f"No free VF of {pf.name} on {host.name} is in an IOMMU group",
            "Turn the IOMMU on in the firmware and on the kernel's command line",
        )
    vf = min(grouped, key=lambda vf: (vf.interface is not None, vf.index))
    return _taken(vf, pf.driver if shares else "vfio-pci")


def _more_vfs(pf: Pf) -> str:
    """The kernel changes no number of VFs but from 0 and to 0."""
    file = f"/sys/class/net/{pf.name}/device/sriov_numvfs"
    return f"{file}; it takes 0 first, by which all its VFs are gone, those of guests, too" if pf.vfs else file


class NodeMemory(Struct, frozen=True, kw_only=True):
    """What DPDK gets on a NUMA node, and how much of it are huge pages that are made for it, in MiB."""

    node: int
    mib: int
    new_mib: int


def choose_memory(host: Inventory, pfs: tuple[Pf, ...]) -> tuple[NodeMemory, ...]:
    """For each NUMA node with an uplink; none where the operator has DPDK run, with memory of its own.

    Where it runs and nothing says that it is to, it is left from an earlier relay, and will not start again by itself.
    Raises `Refusal`.
    """
    switch = host.relay_ground.switch
    if switch is not None and switch.dpdk_started and "dpdk-init" in switch.settings:
        return ()
    return tuple(_memory(host.name, node) for node in dict.fromkeys(node_of(host, pf) for pf in pfs))


def page_changes(ground: RelayGround, memory: Iterable[NodeMemory]) -> tuple[HugePages, ...]:
    """What is to be added to the huge pages that are there."""
    changes = []
    for each in memory:
        node = ground.node(each.node)
        pool = node.pool(page_size(node)) if node else None
        if pool and each.new_mib:
            count = pool.total + -(-(each.new_mib << 10) // pool.size_kib)
            changes.append(HugePages(node=each.node, size_kib=pool.size_kib, count=count, before=pool.total))
    return tuple(changes)


def settings(ground: RelayGround, cores: tuple[int, ...], memory: Iterable[NodeMemory]) -> dict[str, str]:
    """What is set of Open vSwitch: only what nobody has set before."""
    there = ground.switch.settings if ground.switch else {}
    wanted = {CPUS: hex(sum(1 << cpu for cpu in cores))}
    release = ground.switch.release if ground.switch else (0, 0)
    if release >= (3, 1):
        wanted["pmd-sleep-max" if release >= (3, 2) else "pmd-maxsleep"] = SLEEP_US
    if len(cores) > 1:
        wanted["pmd-auto-lb"] = "true"
    sizes = {each.node: each.mib for each in memory}
    if sizes:
        highest = max(node.number for node in ground.nodes)
        wanted["dpdk-socket-mem"] = ",".join(str(sizes.get(number, 0)) for number in range(highest + 1))
        # Guests may be meant to have the other huge pages. 0 is no limit: guests of that node need some of its memory.
        wanted["dpdk-socket-limit"] = wanted["dpdk-socket-mem"]
        wanted["dpdk-extra"] = NO_DEVICE
        wanted["dpdk-init"] = "try"
    return {name: value for name, value in wanted.items() if name not in there}


def bridges(host: Inventory, vfs: tuple[RelayVf, ...]) -> tuple[RelayBridge, ...]:
    """A bridge for each physical network: two uplinks of one on it would be a loop, unless they are a bond."""
    by_network: dict[str, list[RelayVf]] = {}
    for vf in vfs:
        by_network.setdefault(host.network_of(vf.pf) or f"pf:{vf.pf}", []).append(vf)
    taken = {bridge.name for bridge in host.bridges}
    names = (name for number in range(len(taken) + len(vfs) + 1) if (name := f"relay{number}") not in taken)
    mtus = {pf.name: pf.mtu for pf in host.pfs}
    return tuple(
        RelayBridge(
            name=name,
            uplinks=tuple(RelayUplink(name=f"{name}-up{at}", address=vf.address) for at, vf in enumerate(each)),
            mtu=min(mtus.get(vf.pf, 1500) for vf in each),
        )
        for name, each in zip(names, by_network.values(), strict=False)
    )


def page_size(node: NumaNode) -> int:
    """The smallest that there is: a page of 1 GiB is hardly ever to be had after the boot."""
    return min((pool.size_kib for pool in node.pools), default=2048)


def _memory(name: str, node: NumaNode) -> NodeMemory:
    """Free huge pages may be meant for guests: they are used where no others can be made."""
    pool = node.pool(page_size(node))
    there = (pool.free * pool.size_kib >> 10) if pool else 0
    spare = (node.memory_free >> 20) // KEPT_SHARE if pool else 0
    for used in (0, there):
        for wanted in MEMORY_MIB:
            if wanted - used <= spare:
                return NodeMemory(node=node.number, mib=wanted, new_mib=max(0, wanted - used))
    raise Refusal(
        "relay-no-huge-pages",
        f"NUMA node {node.number} of {name} has {there} MiB of huge pages free and {node.memory_free >> 20} MiB of "
        f"memory: the relay needs {MEMORY_MIB[-1]} MiB of huge pages, and half of that memory at most may become some",
        "Free memory there, or set huge pages aside at the boot (hugepages= on the kernel's command line)",
    )


def _taken(vf: Vf, bound: str) -> RelayVf:
    return RelayVf(
        pf=vf.pf,
        index=vf.index,
        address=vf.address,
        bound=bound,
        driver=vf.driver,
        trust=vf.settings.trust,
        spoof_check=vf.settings.spoof_check,
    )
