"""Which of the guest's connections go along, so that a stateful filter of the destination knows them."""

from collections.abc import Iterator, Sequence

from vferry.host.api import MOST_ADDRESSES
from vferry.plan.announced import addresses_of
from vferry.plan.facts import Facts, Finding, warning
from vferry.plan.plan import Plan, VfMove


def tracked(facts: Facts, moves: Sequence[VfMove]) -> tuple[str, ...]:
    """The addresses of NICs that are on a bridge, for now or for good, where the source tracks and both hosts can."""
    if not facts.source.connections or facts.destination.connections is None:
        return ()
    macs = (*(move.mac for move in moves if move.stands_by), *_on_bridges(facts))
    found = (address for mac in macs for address in addresses_of(facts, mac))
    return tuple(dict.fromkeys(found))[:MOST_ADDRESSES]


def about(facts: Facts, plan: Plan | None) -> Iterator[Finding]:
    """What a stateful filter of a host will not know of the guest."""
    source, destination, guest = facts.source, facts.destination, facts.guest.name
    active = [inventory.name for inventory in (source, destination) if inventory.connections]
    if plan is None or not active:
        return
    if any(move.stands_by for move in plan.moves):
        yield warning(
            "connections-on-vf",
            f"Connections are tracked on {' and '.join(active)}, but not those that {guest} has on its VF: a stateful "
            "filter on the standby path sees them from their middle on",
            "Let the filter accept that (nf_conntrack_tcp_loose=1, and no rule that wants to see how they begin)",
        )
    if not _on_bridges(facts):
        return
    if not source.connections:
        yield warning(
            "connections-untracked",
            f"Connections are tracked on {destination.name}, but not on {source.name}: those that {guest} has are "
            "unknown to a stateful filter there",
        )
    elif destination.connections is not None and not plan.tracked:
        why = facts.guest_silence or "its agent tells of no address"
        yield warning(
            "connections-untold",
            f"Which of the connections that {source.name} tracks are {guest}'s cannot be told ({why}): they do not go "
            f"along, and a stateful filter on {destination.name} does not know them",
            "Run qemu-guest-agent in the guest",
        )


def _on_bridges(facts: Facts) -> tuple[str, ...]:
    """The MACs of NICs that are on a bridge all the time; one may be that of a VF, too, whose standby NIC it is."""
    return tuple(nic.mac for nic in facts.guest.nics if nic.vf is None and nic.bridge is not None)
