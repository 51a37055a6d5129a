"""NICs on a switched relay: which bridge of the destination's each becomes a port of."""

from collections.abc import Iterator

from msgspec.structs import replace

from vferry.model.guest import Nic
from vferry.model.host import Inventory
from vferry.model.ovn import Chassis, LogicalPort
from vferry.model.relay import RelayBridge, RelayPort, RelayState, SwitchPlace
from vferry.plan import logical_port, networks, switch_place
from vferry.plan.facts import Facts, Finding, Refusal, Wishes, info
from vferry.plan.plan import NetworkMode, PortMove, Rebinding


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


def about(facts: Facts) -> Iterator[Finding]:
    """What becomes of a service chain that the guest leaves others of on its host."""
    relay, going = facts.source.relay, {nic.mac for nic in facts.guest.nics}
    places = [(port.mac, port.switch) for port in relay.ports if port.switch and port.switch.chain] if relay else []
    left = {place.chain.name for mac, place in places if mac not in going and place.chain}
    for mac, place in places:
        if mac in going and place.chain and place.chain.name in left:
            yield info(
                "chain-apart",
                f"{mac} leaves others of the chain {place.chain.name} on {facts.source.name}: their frames go by "
                f"VLAN {place.vlan} of the network from then on, or are lost where that does not have it",
            )


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
    if own.switch.logical_port is not None:
        return _rebound(facts, wishes, own, own.switch, own.switch.logical_port)
    network = networks.of_both(source, destination, source.network_of_nic(nic), nic.mac)
    bridge, uplink = bridge_on(destination, network, nic.mac)
    if bridge.mtu < own.mtu:
        raise Refusal(
            "relay-mtu",
            f"The bridge {bridge.name} of {destination.name} takes {bridge.mtu} bytes; {nic.mac} may send {own.mtu}",
            f"Give its uplinks' PFs that MTU, and make the relay of {destination.name} anew",
        )
    there = replace(own.switch, bridge=bridge.name)
    switch_place.refuse_mixed(destination, there, nic.mac)
    return PortMove(
        mac=nic.mac,
        reason=_reason(wishes),
        network=network,
        source=own,
        destination=RelayPort(guest=own.guest, mac=own.mac, socket=own.socket, switch=there, mtu=own.mtu),
        uplink=uplink,
    )


def _reason(wishes: Wishes) -> str:
    if wishes.mode is NetworkMode.RELAY:
        return "relay was asked for"
    return "it keeps its virtio NIC, which is a port of the relay there, too"


def _rebound(facts: Facts, wishes: Wishes, own: RelayPort, here_on: SwitchPlace, name: str) -> PortMove:
    """A port of OVN's, which both hosts may have for the migration."""
    here, there = logical_port.chassis_of(facts.source, name), logical_port.chassis_of(facts.destination, name)
    known = facts.northbound.get(name)
    if known is None:
        raise logical_port.unknown(name, facts.northbound_silence or "it has no such port")
    relay = facts.destination.relay
    if relay is None or relay.state is not RelayState.ENABLED or not relay.switched:
        raise Refusal(
            "relay-missing",
            f"{own.mac} needs a switched relay, and {facts.destination.name} has none",
            f"Make one: vferry relay enable {facts.destination.name} --uplink PF --switched",
        )
    logical_port.refuse_without_mapping(known, facts.destination.name, there)
    _refuse_without_tunnel(facts, here, there)
    before = known.binding
    both = LogicalPort(name=name, requested_chassis=f"{here.name},{there.name}", activation_strategy="rarp")
    place = replace(here_on, bridge=there.bridge)
    return PortMove(
        mac=own.mac,
        reason=_reason(wishes),
        network=None,
        source=own,
        destination=RelayPort(guest=own.guest, mac=own.mac, socket=own.socket, switch=place, mtu=own.mtu),
        uplink=None,
        rebinding=Rebinding(before=before, both=both, after=replace(before, requested_chassis=there.name)),
    )


def _refuse_without_tunnel(facts: Facts, here: Chassis, there: Chassis) -> None:
    if not (here.encap_types and there.encap_types) or not set(here.encap_types).isdisjoint(there.encap_types):
        return
    source, destination = facts.source.name, facts.destination.name
    raise Refusal(
        "ovn-no-tunnel",
        f"No tunnel of OVN's joins {source} ({', '.join(here.encap_types)}) and {destination} "
        f"({', '.join(there.encap_types)})",
        f"On {destination}: ovs-vsctl set Open_vSwitch . external_ids:ovn-encap-type={','.join(here.encap_types)}; "
        "or choose another host",
    )
