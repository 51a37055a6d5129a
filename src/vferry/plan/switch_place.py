"""What a port of a switched relay does of what a VF did for a guest, and what it cannot do."""

from collections.abc import Iterator

from vferry.model.host import Inventory, LinkState, VfSettings
from vferry.model.ovn import Chassis
from vferry.model.relay import RelayBridge, RelayPort, SwitchPlace
from vferry.plan.facts import Finding, Refusal, warning


def place(bridge: RelayBridge, settings: VfSettings, mac: str) -> SwitchPlace:
    """A port of a bridge that does what a VF's settings say. Raises `Refusal` for what no port does."""
    _refuse_unheld(settings, mac, bridge.name)
    return SwitchPlace(bridge=bridge.name, vlan=settings.vlan or 0, max_tx_rate=settings.max_tx_rate or 0)


def bound(chassis: Chassis, logical_port: str, settings: VfSettings, mac: str, network: str) -> SwitchPlace:
    """A port that OVN binds, which sees to VLAN and rate itself. Raises `Refusal` where a VF has such.

    `network`: what physical one it leaves.
    """
    if settings.vlan or settings.max_tx_rate:
        raise Refusal(
            "port-is-ovns",
            f"{mac} has a VLAN or a rate, which {logical_port} gets from OVN",
            "Set them there (tag, options:qos_max_rate), and take them off here",
        )
    _refuse_unheld(settings, mac, chassis.bridge)
    return SwitchPlace(bridge=chassis.bridge, logical_port=logical_port, network=network)


def _refuse_unheld(settings: VfSettings, mac: str, bridge: str) -> None:
    cannot = {
        "a priority (qos)": (settings.qos, "vlan ID qos 0"),
        "a least rate (min_tx_rate)": (settings.min_tx_rate, "min_tx_rate 0"),
        "its link taken down (link_state)": (settings.link_state is LinkState.DISABLE, "state auto"),
    }
    for what, (said, command) in cannot.items():
        if said:
            raise Refusal(
                "port-cannot",
                f"{mac} has {what}, which a port of the bridge {bridge} cannot give it",
                f"Do without: ip link set PF vf INDEX {command}",
            )


def settings_of(port: RelayPort | None) -> VfSettings:
    """What a VF is to do that takes the place of a port on a switched relay; nothing where it is on none."""
    if port is None or port.switch is None:
        return VfSettings()
    return VfSettings(vlan=port.switch.vlan, max_tx_rate=port.switch.max_tx_rate or None)


def refuse_mixed(host: Inventory, place: SwitchPlace, mac: str) -> None:
    """A VLAN that is a service chain's is nobody else's: whoever is in it is past the services, or before them.

    Raises `Refusal`.
    """
    others = [(port.mac, port.switch) for port in host.relay.ports] if host.relay else []
    gateways = host.relay.gateways if host.relay else ()
    for other, there in (*others, *(("a gateway", SwitchPlace(bridge=at.bridge, vlan=at.vlan)) for at in gateways)):
        if there is None or other == mac or (there.bridge, there.vlan) != (place.bridge, place.vlan) or not place.vlan:
            continue
        chains = [each.chain for each in (place, there) if each.chain and each.chain.within]
        if chains and (place.chain is None or there.chain is None or place.chain.name != there.chain.name):
            raise Refusal(
                "chain-vlan-used",
                f"VLAN {place.vlan} is the service chain {chains[0].name}'s: {mac} and {other} are not both of it",
                f"Have one of them be in another VLAN; look with: vferry relay show {host.name}",
            )


def about(mac: str, settings: VfSettings) -> Iterator[Finding]:
    """What a VF did that its place on a switched relay does not."""
    if settings.spoof_check:
        yield warning(
            "relay-unchecked",
            f"The NIC checks from which MAC {mac} sends (spoof_check), and the relay's switch does not",
            "Put on it only guests that may send from any MAC",
        )
