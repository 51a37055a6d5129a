"""NICs on a switched relay: which bridge of the destination's each becomes a port of."""

from vferry.model.guest import Nic
from vferry.model.host import Inventory
from vferry.model.relay import RelayBridge, RelayPort, RelayState, SwitchPlace
from vferry.plan import networks
from vferry.plan.facts import Facts, Finding, Refusal, Wishes
from vferry.plan.plan import NetworkMode, PortMove


def moves(facts: Facts, wishes: Wishes) -> tuple[tuple[PortMove, ...], tuple[Finding, ...]]:
    """What becomes of the guest's NICs that are on a switched relay, or why not."""
    found: list[PortMove] = []
    refused: list[Finding] = []
    for nic in facts.guest.nics:
        if nic.relay_bridge is None:
            continue
        try:
            found.append(_move(facts, wishes, nic))
        except Refusal as refusal:
            refused.append(refusal.finding)
    return tuple(found), tuple(refused)


def bridge_on(host: Inventory, network: str, mac: str) -> tuple[RelayBridge, str]:
    """The bridge of the host's switched relay on a physical network, and the PF by which it goes out.

    Raises `Refusal`.
    """
    relay = host.relay
    if relay is not None and relay.state is RelayState.ENABLED and not relay.switched:
        raise Refusal(
            "relay-differs",
            f"The relay of {host.name} is a direct one, and {mac} is to be a port of a switch",
            "Choose another host",
        )
    enabled = relay.bridges if relay is not None and relay.state is RelayState.ENABLED else ()
    for bridge in enabled:
        pfs = host.relay_pfs(bridge.name)
        if not any(host.network_of(pf) == network for pf in pfs):
            continue
        up = next((name for name in pfs if (pf := host.pf(name)) is not None and pf.up), None)
        if up is None:
            raise Refusal(
                "pf-missing", f"{host.name} has no PF {' or '.join(pfs)} that is up", f"ip link set dev {pfs[0]} up"
            )
        return bridge, up
    raise Refusal(
        "relay-missing",
        f"{mac} needs a switched relay, and {host.name} has none on {network}",
        f"Make one: vferry relay enable {host.name} --uplink {','.join(host.networks[network].pfs)} --switched",
    )


def _move(facts: Facts, wishes: Wishes, nic: Nic) -> PortMove:
    source, destination = facts.source, facts.destination
    own = source.relay.port(nic.mac) if source.relay else None
    if own is None or own.switch is None:
        raise Refusal(
            "relay-unknown",
            f"{source.name} does not say by which port of its relay {nic.mac} is on {nic.socket}",
            f"Look with: vferry relay show {source.name}",
        )
    network = networks.of_both(source, destination, source.network_of_nic(nic), nic.mac)
    bridge, uplink = bridge_on(destination, network, nic.mac)
    if bridge.mtu < own.mtu:
        raise Refusal(
            "relay-mtu",
            f"The bridge {bridge.name} of {destination.name} takes {bridge.mtu} bytes; {nic.mac} may send {own.mtu}",
            f"Give its uplinks' PFs that MTU, and make the relay of {destination.name} anew",
        )
    there = SwitchPlace(bridge=bridge.name, vlan=own.switch.vlan, max_tx_rate=own.switch.max_tx_rate)
    asked = wishes.mode is NetworkMode.RELAY
    return PortMove(
        mac=nic.mac,
        reason="relay was asked for" if asked else "it keeps its virtio NIC, which is a port of the relay there, too",
        network=network,
        source=own,
        destination=RelayPort(guest=own.guest, mac=own.mac, socket=own.socket, switch=there, mtu=own.mtu),
        uplink=uplink,
    )
