"""NICs on a macvtap: which interface of the destination each is put on."""

from collections.abc import Iterator

from vferry.model.guest import Guest, Nic
from vferry.model.host import Inventory
from vferry.plan import definition
from vferry.plan.facts import Facts, Finding, error
from vferry.plan.plan import NetworkMode, VfMove


def interfaces(facts: Facts, moves: list[VfMove]) -> dict[str, str]:
    """By MAC: those of the VFs that were chosen, and the PFs of the networks whose PFs are named at the source."""
    pfs = {nic.mac: facts.destination.networks[name].pf for nic, name in _on_pfs(facts) if _is_shared(facts, name)}
    vfs = {m.mac: facts.destination.vf(m.destination.address) for m in moves if m.mode is NetworkMode.MACVTAP}
    return pfs | {mac: vf.interface for mac, vf in vfs.items() if vf is not None and vf.interface is not None}


def about(facts: Facts) -> Iterator[Finding]:
    """What is to say of NICs on a macvtap that is on a PF, or of whose interface libvirt chooses."""
    pools = definition.pools(facts.definition.persistent)
    for nic in facts.guest.nics:
        if nic.interface is not None and nic.mac in pools:
            yield error(
                "macvtap-from-pool",
                f"{nic.mac} has its macvtap from libvirt's network {pools[nic.mac]}, which chooses by itself what it "
                f"is put on at {facts.destination.name}",
                "Name the VF's interface in the definition (<interface type='direct'>) and start the guest anew",
            )
    for _, network in _on_pfs(facts):
        if _is_shared(facts, network):
            yield from _enslaved(facts, facts.destination.networks[network].pf)
        else:
            yield error(
                "network-missing",
                f"{facts.destination.name} is not on the physical network {network}",
                f"Choose a host that is, or name it in {facts.destination.name}'s agent configuration",
            )


def rewired(guest: Guest, source: Inventory) -> tuple[str, ...]:
    """The MACs of those that are put on another interface; the others need one of the same name."""
    nics = (nic for nic in guest.nics if nic.interface is not None)
    return tuple(nic.mac for nic in nics if nic.vf is not None or source.network_of(nic.interface or "") is not None)


def _on_pfs(facts: Facts) -> Iterator[tuple[Nic, str]]:
    for nic in facts.guest.nics:
        network = facts.source.network_of(nic.interface or "")
        if network is not None:
            yield nic, network


def _is_shared(facts: Facts, network: str) -> bool:
    return network in facts.destination.networks


def _enslaved(facts: Facts, pf: str) -> Iterator[Finding]:
    bridge = next((bridge.name for bridge in facts.destination.bridges if pf in bridge.ports), None)
    if bridge is not None:
        yield error(
            "interface-in-bridge",
            f"{pf} of {facts.destination.name} is in the bridge {bridge}, and takes no macvtap",
            f"Choose another host, or put the guest's NIC on a VF, or on {bridge}",
        )
