"""Whether the destination's VF can be given what the source's has."""

from collections.abc import Iterator

from vferry.model.guest import Guest
from vferry.model.host import WIPED, Inventory, VfSettings
from vferry.plan.facts import Facts, Finding, error
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


def asked(guest: Guest, source: Inventory, destination: Inventory) -> tuple[str, ...]:
    """The PFs of the destination whose drivers are to be asked what they can set, as a VF of the guest has it set."""
    vfs = (source.vf(nic.vf.address) for nic in guest.nics if nic.vf is not None)
    networks = (source.network_of(vf.pf) for vf in vfs if vf is not None and any(_set(vf.settings)))
    pfs = (pf for network in networks if network in destination.networks for pf in destination.networks[network].pfs)
    return tuple(dict.fromkeys(pf for pf in pfs if destination.pf(pf) is not None))


def missing(facts: Facts, move: VfMove) -> Iterator[Finding]:
    """Settings that a guest's VF has, and that the driver of the destination's PF does not know, or cannot make."""
    vf, before = move.destination, move.destination_before
    lacks = facts.lacks.get(vf.pf, ())
    for name in _set(move.carried):
        if getattr(before, name) is not None and name not in lacks:
            continue
        yield error(
            "vf-cannot",
            f"{move.mac} has {name} {_shown(getattr(move.carried, name))}, "
            f"which the driver of {vf.pf} on {facts.destination.name} cannot do",
            "Choose another host, or do without: "
            f"ip link set {move.source.pf} vf {move.source.index} {_COMMANDS[name]}",
        )


def _set(settings: VfSettings) -> Iterator[str]:
    """What is not as the kernel makes it; its MAC is another matter."""
    for name in _COMMANDS:
        if getattr(settings, name) not in (None, getattr(WIPED, name)):
            yield name


def _shown(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
