"""NICs on a direct relay: what joins each to a VF of the destination, by the relay that is there."""

from collections.abc import Collection, Iterator

from vferry.model.guest import Nic
from vferry.model.host import Inventory
from vferry.model.relay import Relay, RelayPort, RelayState
from vferry.plan.facts import Facts, Finding, Refusal, warning
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
    relay = _relay(destination, nic, network)
    pfs = [pf for name in relay.uplinks if name in destination.networks[network].pfs and (pf := destination.pf(name))]
    if pfs and not any(pf.up for pf in pfs):
        names = [pf.name for pf in pfs]
        raise Refusal(
            "pf-missing",
            f"{destination.name} has no PF {' or '.join(names)} that is up",
            f"ip link set dev {names[0]} up",
        )
    refused: Refusal | None = None
    for pf in (pf for pf in pfs if pf.up):
        try:
            vf = choose_vf(destination, pf, taken)
        except Refusal as refusal:
            refused = refusal
        else:
            return RelayPort(guest=own.guest, mac=own.mac, socket=own.socket, vf=vf, mtu=own.mtu)
    raise refused or _missing(destination, nic, network)


def about(facts: Facts) -> Iterator[Finding]:
    """What may keep a guest's NIC from going on by the other host's relay."""
    here, there = facts.source.relay_ground.switch, facts.destination.relay_ground.switch
    if not (here and there and here.dpdk_version and there.dpdk_version):
        return
    if any(nic.relayed for nic in facts.guest.nics) and here.dpdk_version != there.dpdk_version:
        yield warning(
            "other-dpdk",
            f"The relays differ: {here.dpdk_version} on {facts.source.name}, {there.dpdk_version} on "
            f"{facts.destination.name}. If the guest's NIC uses what the latter lacks, QEMU refuses it at the end of "
            "the copy, and the migration is undone",
        )


def _relay(destination: Inventory, nic: Nic, network: str) -> Relay:
    relay = destination.relay
    if relay is None or relay.state is not RelayState.ENABLED:
        raise _missing(destination, nic, network)
    if relay.switched:
        raise Refusal(
            "relay-differs",
            f"The relay of {destination.name} is a switched one, and {nic.mac} is joined to a VF of its own",
            "Choose another host",
        )
    return relay


def _missing(destination: Inventory, nic: Nic, network: str) -> Refusal:
    names = ",".join(destination.networks[network].pfs)
    return Refusal(
        "relay-missing",
        f"{nic.mac} is on a relay, and {destination.name} has none on {network}",
        f"Make one (vferry relay enable {destination.name} --uplink {names}), or choose another host",
    )
