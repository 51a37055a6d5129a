"""Physical networks: what is on none that its host names cannot be moved."""

from vferry.model.host import Inventory
from vferry.plan.facts import Refusal


def known(host: Inventory, network: str | None, what: str) -> str:
    """The network that something is on. Raises `Refusal` where the host does not say."""
    if network is None:
        raise Refusal(
            "network-unknown",
            f"{host.name} does not say which physical network {what} is on",
            f"Name it in {host.name}'s agent configuration: [networks.NAME] with pf and bridge",
        )
    return network
