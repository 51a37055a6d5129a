"""Physical networks: what is on none that its host names cannot be moved."""

from vferry.model.host import Inventory
from vferry.plan.facts import Refusal


def of_both(source: Inventory, destination: Inventory, network: str | None, what: str) -> str:
    """The network that something of the source is on; both hosts must be. Raises `Refusal`."""
    network = known(source, network, what)
    if network not in destination.networks:
        raise Refusal(
            "network-missing",
            f"{destination.name} is not on the physical network {network}",
            f"Choose a host that is, or name it in {destination.name}'s agent configuration",
        )
    return network


def known(host: Inventory, network: str | None, what: str) -> str:
    """The network that something is on. Raises `Refusal` where the host does not say."""
    if network is None:
        raise Refusal(
            "network-unknown",
            f"{host.name} does not say which physical network {what} is on",
            f"Name it in {host.name}'s agent configuration: [networks.NAME] with pf and bridge",
        )
    return network
