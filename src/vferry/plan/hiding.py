"""Whether a VF can be kept from taking what is for a guest that is still on its way, by the driver of its PF."""

from collections.abc import Iterator

from vferry.model.host import Inventory, Vf
from vferry.plan.facts import Facts, Finding, info
from vferry.plan.plan import NetworkMode, VfMove

HIDES = frozenset({"igb"})
"""By whose source a VF may change its MAC while it is up, by one message to its PF, which changes the filter before it
answers, and nothing is reset. Others keep what libvirt sets (docs/decisions/0026)."""


def hides(inventory: Inventory, vf: Vf) -> bool:
    """Whether a VF of a host can be."""
    pf = inventory.pf(vf.pf)
    return pf is not None and pf.driver in HIDES


def about(facts: Facts, move: VfMove) -> Iterator[Finding]:
    """What it means for others where it cannot."""
    if move.mode is not NetworkMode.MACVTAP or move.hidden:
        return
    pf = facts.destination.pf(move.destination.pf)
    yield info(
        "neighbours-wait",
        f"During the copy {move.destination.pf} of {facts.destination.name} and its VFs may not reach {move.mac}: "
        f"libvirt gives a VF there its MAC before, and with {pf.driver if pf else 'this driver'} vferry leaves that so",
    )
