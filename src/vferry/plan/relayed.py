"""NICs on a direct relay, each on a VF of its own: what joins it to one of the destination, by the relay there."""

from collections.abc import Collection, Iterator

from vferry.model.guest import Nic
from vferry.model.host import Inventory, Pf
from vferry.model.relay import RelayPort, RelayState, RelayVf
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
    vf = free_vf(destination, network, nic.mac, taken, own.mtu)
    return RelayPort(guest=own.guest, mac=own.mac, socket=own.socket, vf=vf, mtu=own.mtu)


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
