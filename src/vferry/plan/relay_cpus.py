"""On which CPUs of a host a relay forwards, and which of its guests get in its way there."""

from collections.abc import Callable, Collection, Iterable, Iterator

from vferry.model.guest import Guest
from vferry.model.host import Inventory, Pf
from vferry.model.relay import NumaNode, RelayGround
from vferry.model.switch import CPUS, cpus_of_mask
from vferry.plan.facts import Finding, Refusal, warning

MOST_SHARE = 4
"""At most a quarter of a node's CPUs forward, but one of them in any case."""
_PIN = "Pin them to others (virsh vcpupin, emulatorpin; <vcpu cpuset> in a definition)"


def choose_cores(host: Inventory, pfs: tuple[Pf, ...]) -> tuple[int, ...]:
    """One for each uplink on its NUMA node, never the node's first, nor all that a guest is pinned to.

    Those that no guest is pinned to come first. Raises `Refusal`.
    """
    given = cores_of(host.relay_ground)
    if given:
        if held := [guest for guest in host.guests if held_on(guest, given)]:
            raise _used(host.name, given, held)
        return given
    nodes = [node_of(host, pf) for pf in pfs]
    chosen: list[int] = []
    for node in dict.fromkeys(nodes):
        if len(node.cpus) == 1:
            raise Refusal(
                "relay-no-core",
                f"NUMA node {node.number} of {host.name} has no second CPU, and the relay needs one for itself",
                "Take a PF near two CPUs or more; or, where the one may forward beside all else, say so: "
                "ovs-vsctl set Open_vSwitch . other_config:pmd-cpu-mask=0x1",
            )
        number = min(nodes.count(node), max(1, len(node.cpus) // MOST_SHARE))
        picked = _pick(host, node, number, chosen)
        if not picked:
            raise _used(host.name, node.cpus, [guest for guest in host.guests if set(guest.pinned) & set(node.cpus)])
        chosen += picked
    return tuple(sorted(chosen))


def cores_of(ground: RelayGround) -> tuple[int, ...]:
    """The CPUs that Open vSwitch was given to forward on; none where nobody has said."""
    return cpus_of_mask(ground.switch.settings.get(CPUS, "")) if ground.switch else ()


def forwards_on(host: Inventory) -> tuple[int, ...]:
    """The CPUs on which the host's relay forwards, as Open vSwitch has them now; none where there is no relay."""
    return (cores_of(host.relay_ground) or host.relay.cores) if host.relay else ()


def held_on(guest: Guest, cpus: Collection[int]) -> tuple[int, ...]:
    """Those of some CPUs that a thread of the guest's runs on in any case: it is pinned to them alone."""
    return tuple(sorted({cpu for pins in guest.pins if set(pins) <= set(cpus) for cpu in pins}))


def strays_to(guest: Guest, cpus: Collection[int]) -> tuple[int, ...]:
    """Those of some CPUs that a thread of the guest's may run on, being pinned to others, too."""
    return tuple(sorted({cpu for pins in guest.pins if not set(pins) <= set(cpus) for cpu in pins if cpu in cpus}))


def about(host: Inventory) -> Iterator[Finding]:
    """The guests of a host that are pinned to where its relay forwards, since that was made or all along."""
    cpus = forwards_on(host)
    if held := _guests(host, cpus, held_on):
        yield warning(
            "relay-core-used",
            f"The guests {', '.join(held)} are pinned to where the relay of {host.name} forwards "
            f"(CPU {_listed(held.values())}), and nobody gets all of it",
            f"{_PIN}, or give Open vSwitch others: pmd-cpu-mask",
        )
    yield from straying(host, cpus)


def straying(host: Inventory, cpus: Collection[int]) -> Iterator[Finding]:
    """The guests of a host whose CPUs include some of these, and others: the kernel has it from case to case."""
    if wide := _guests(host, cpus, strays_to):
        yield warning(
            "relay-cores-shared",
            f"The guests {', '.join(wide)} are pinned to CPUs of {host.name} that include some of the relay's, and may "
            f"run there (CPU {_listed(wide.values())})",
            f"{_PIN} alone",
        )


def _guests(
    host: Inventory, cpus: Collection[int], pinned: Callable[[Guest, Collection[int]], tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The guests that are pinned so to some of these CPUs, by name, and to which."""
    return {guest.name: found for guest in host.guests if (found := pinned(guest, cpus))}


def node_of(host: Inventory, pf: Pf) -> NumaNode:
    """The NUMA node that a PF is near. Raises `Refusal`."""
    ground = host.relay_ground
    found = ground.node(ground.pf_nodes.get(pf.name, 0)) or next(iter(ground.nodes), None)
    if found is None or not found.cpus:
        raise Refusal(
            "relay-no-node",
            f"{host.name} does not say which CPUs are near {pf.name}",
            "Look at /sys/devices/system/node on that host",
        )
    return found


def _pick(host: Inventory, node: NumaNode, number: int, elsewhere: Collection[int]) -> list[int]:
    """First such as no guest is pinned to, then isolated ones, then such whose core no busy one is on.

    Two threads of a core get half of it each. `elsewhere`: those that were picked on other nodes.
    """
    ground, first = host.relay_ground, min(node.cpus)
    pinned = {cpu for guest in host.guests for cpu in guest.pinned}
    chosen: list[int] = []

    def rank(cpu: int) -> tuple[bool, bool, bool, int]:
        with_it = {other for threads in ground.siblings if cpu in threads for other in threads if other != cpu}
        return cpu in pinned, cpu not in ground.isolated, bool(with_it & {first, *pinned, *chosen}), -cpu

    def is_free(cpu: int) -> bool:
        taken = {cpu, *chosen, *elsewhere}
        return cpu not in (first, *chosen) and not any(held_on(guest, taken) for guest in host.guests)

    while len(chosen) < number and (free := list(filter(is_free, node.cpus))):
        chosen.append(min(free, key=rank))
    return chosen


def _listed(cpus: Iterable[Iterable[int]]) -> str:
    return ", ".join(map(str, sorted({cpu for each in cpus for cpu in each})))


def _used(host: str, cpus: Iterable[int], guests: Iterable[Guest]) -> Refusal:
    return Refusal(
        "relay-core-used",
        f"Guests are pinned to the CPUs of {host} that the relay would have ({', '.join(map(str, cpus))}): "
        f"{', '.join(sorted(guest.name for guest in guests))}",
        f"{_PIN}, or give Open vSwitch others: pmd-cpu-mask",
    )
