"""NICs on a macvtap: which interface of the destination each is put on."""

from collections.abc import Iterator

from vferry.model.guest import Guest, Nic
from vferry.plan.facts import Facts, Finding, error, warning
from vferry.plan.plan import NetworkMode, VfMove


def interfaces(facts: Facts, moves: list[VfMove]) -> dict[str, str]:
    """By MAC: those of the VFs that were chosen, and the PFs of the networks whose PFs are named at the source."""
    pfs = {nic.mac: facts.destination.networks[name].pf for nic, name in _on_pfs(facts) if _is_shared(facts, name)}
    vfs = {m.mac: facts.destination.vf(m.destination.address) for m in moves if m.mode is NetworkMode.MACVTAP}
    return pfs | {mac: vf.interface for mac, vf in vfs.items() if vf is not None and vf.interface is not None}


def about(facts: Facts) -> Iterator[Finding]:
    """What is to say of NICs on a macvtap on something else than a VF."""
    for nic in elsewhere(facts.guest):
        network = facts.source.network_of(nic.interface or "")
        if network is None:
            yield warning(
                "macvtap-interface",
                f"{nic.mac} is on {nic.interface} of {facts.source.name}, which is no PF of a physical network: "
                f"{facts.destination.name} needs an interface of that name",
            )
        elif not _is_shared(facts, network):
            yield error(
                "network-missing",
                f"{facts.destination.name} is not on the physical network {network}",
                f"Choose a host that is, or name it in {facts.destination.name}'s agent configuration",
            )
        else:
            yield from _enslaved(facts, facts.destination.networks[network].pf)


def elsewhere(guest: Guest) -> list[Nic]:
    """The NICs on a macvtap that is on no VF."""
    return [nic for nic in guest.nics if nic.interface is not None and nic.vf is None]


def _on_pfs(facts: Facts) -> Iterator[tuple[Nic, str]]:
    for nic in elsewhere(facts.guest):
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
