"""Whether the destination's VF can be given what the source's has."""

from collections.abc import Iterator

from vferry.model.host import WIPED
from vferry.plan.facts import Finding, error
from vferry.plan.plan import VfMove

_COMMANDS = {
    "vlan": "vlan 0",
    "qos": "vlan ID qos 0",
    "trust": "trust off",
    "spoof_check": "spoofchk on",
    "link_state": "state auto",
    "min_tx_rate": "min_tx_rate 0",
    "max_tx_rate": "max_tx_rate 0",
}
"""What of `ip link set PF vf INDEX` makes each as the kernel does."""


def missing(host: str, move: VfMove) -> Iterator[Finding]:
    """Settings that a guest's VF has, and of which the driver of the destination's PF knows nothing."""
    vf, before = move.destination, move.destination_before
    for name, command in _COMMANDS.items():
        value = getattr(move.carried, name)
        if value in (None, getattr(WIPED, name)) or getattr(before, name) is not None:
            continue
        yield error(
            "vf-cannot",
            f"{move.mac} has {name} {_shown(value)}, which the driver of {vf.pf} on {host} does not know",
            f"Choose another host, or do without: ip link set {move.source.pf} vf {move.source.index} {command}",
        )


def _shown(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
