"""NICs on a direct relay, each on a VF of its own: what joins it to one of the destination, by the relay there."""

from collections.abc import Collection, Iterator, Sequence

from msgspec.structs import replace

from vferry.model.guest import Nic
from vferry.model.host import Inventory, Pf
from vferry.model.relay import RelayPort, RelayState, RelayVf
from vferry.plan import relay_needs
from vferry.plan.facts import Facts, Finding, Refusal, info, warning
from vferry.plan.plan import VfMove
from vferry.plan.relay_choice import choose_vf


def port(facts: Facts, nic: Nic, network: str, taken: Collection[str]) -> RelayPort:
    """The destination's port: the same socket, and a free VF of an uplink on the network. Raises `Refusal`."""
    source, destination = facts.source, facts.destination
    own = source.relay.port(nic.mac) if source.relay else None
    if own is None:
        raise Refusal(
            "relay-unknown",
            f"{source.name} does not say by which port of its relay {nic.mac} is on {nic.socket}",
            f"Look with: vferry relay show {source.name}",
        )
    vf = free_vf(destination, network, nic.mac, taken, own.mtu)
    return replace(own, vf=vf, switch=None)


def free_vf(host: Inventory, network: str, mac: str, taken: Collection[str] = (), mtu: int = 0) -> RelayVf:
    """A VF that the host's direct relay can join a NIC to, of a PF with at least this MTU.

    `taken`: PCI addresses of VFs that others get. Raises `Refusal`.
    """
    pfs = tuple(_uplinks(host, network, mac))
    fitting = [pf for pf in pfs if pf.mtu >= mtu]
    refused = _too_small(host, pfs, mac, mtu) if pfs and not fitting else None
    for pf in fitting:
        try:
            return choose_vf(host, pf, taken)
        except Refusal as refusal:
            refused = refusal
    raise refused or _missing(host, network, mac)


def about(facts: Facts, moves: Sequence[VfMove]) -> Iterator[Finding]:
    """What may keep a guest's NIC from going on by the other host's relay."""
    if any(nic.relayed for nic in facts.guest.nics):
        yield from relay_needs.silent(facts.destination)
        yield from _other_switch(facts)
    for move in moves:
        if move.relay_port and move.relay_port.vf:
            yield from _on_switchdev(facts, move, move.relay_port.vf)


def by_representor(host: Inventory, vf: RelayVf, mac: str) -> Iterator[Finding]:
    """What has to be seen to for a NIC that is on a VF of the relay, where that has a representor."""
    pf = host.pf(vf.pf)
    if pf is None or not pf.switchdev:
        return
    there = host.vf(vf.address)
    name = there.representor if there else None
    bridge = host.bridge_over(name) if name else None
    place = f", {name} in {bridge.name if bridge else 'no bridge'}," if name else ""
    yield warning(
        "representor",
        f"{pf.name} of {host.name} is in switchdev mode: the representor of VF {vf.index}{place} decides whom {mac} "
        "reaches, and vferry puts it in no bridge and gives it no rules",
        f"See to it before, or have a controller do so: tc filter show dev {name or 'NAME'} ingress has its rules",
    )


def _other_switch(facts: Facts) -> Iterator[Finding]:
    here, there = facts.source.relay_ground.switch, facts.destination.relay_ground.switch
    if here is None or there is None:
        return
    if here.dpdk_version and there.dpdk_version and here.dpdk_version != there.dpdk_version:
        yield warning(
            "other-dpdk",
            f"The relays differ: {here.dpdk_version} on {facts.source.name}, {there.dpdk_version} on "
            f"{facts.destination.name}. If the guest's NIC uses what the latter lacks, QEMU refuses it at the end of "
            "the copy, and the migration is undone",
        )
    if here.offloads and not there.offloads:
        yield info(
            "no-offload",
            f"Open vSwitch may offload to NICs on {facts.source.name}, and not on {facts.destination.name} "
            "(hw-offload): what a NIC did for the guest's frames, if any did, the relay's CPUs do there",
        )


def _on_switchdev(facts: Facts, move: VfMove, vf: RelayVf) -> Iterator[Finding]:
    here, there = facts.source.pf(move.source.pf), facts.destination.pf(vf.pf)
    if here and there and here.switchdev and not there.switchdev:
        yield warning(
            "representor-left",
            f"{here.name} of {facts.source.name} is in switchdev mode, and {there.name} of {facts.destination.name} is "
            f"not: what is done by the representor of VF {move.source.index} for {move.mac} is not done there",
            "Look what that is (tc filter show dev NAME ingress), and do it there otherwise, or choose another host",
        )
    yield from by_representor(facts.destination, vf, move.mac)


def _uplinks(host: Inventory, network: str, mac: str) -> Iterator[Pf]:
    relay = host.relay
    if relay is None or relay.state is not RelayState.ENABLED:
        return
    if relay.switched:
        raise Refusal(
            "relay-differs",
            f"The relay of {host.name} is a switched one, and {mac} is to be joined to a VF of its own",
            "Choose another host",
        )
    pfs = [pf for name in relay.uplinks if name in host.networks[network].pfs and (pf := host.pf(name))]
    if pfs and not any(pf.up for pf in pfs):
        names = [pf.name for pf in pfs]
        raise Refusal(
            "pf-missing",
            f"{host.name} has no PF {' or '.join(names)} that is up",
            f"ip link set dev {names[0]} up",
        )
    yield from (pf for pf in pfs if pf.up)


def _too_small(host: Inventory, pfs: tuple[Pf, ...], mac: str, mtu: int) -> Refusal:
    passed = " and ".join(f"{pf.name} passes {pf.mtu}" for pf in pfs)
    return Refusal(
        "relay-mtu",
        f"No PF of the relay of {host.name} takes {mtu} bytes, which {mac} may send: {passed}",
        f"ip link set dev {pfs[0].name} mtu {mtu} there, or choose another host",
    )


def _missing(host: Inventory, network: str, mac: str) -> Refusal:
    return Refusal(
        "relay-missing",
        f"{mac} needs a direct relay, and {host.name} has none on {network}",
        f"Make one: vferry relay enable {host.name} --uplink {','.join(host.networks[network].pfs)}",
    )
