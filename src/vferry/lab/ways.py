"""The ways from the peer to a guest that `vferry lab bench` compares, each laid on the host that has the guest."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from vferry.controller import relay
from vferry.controller.state import find_state
from vferry.lab import guests, outer, owner, places, relays
from vferry.lab.lab import Lab
from vferry.lab.relays import Tell
from vferry.lab.topology import GUESTS, Guest
from vferry.model.problem import Exit, Problem
from vferry.model.relay import RelayKind
from vferry.plan.nic_plan import NicTarget, defined_on

GUEST, ON_MACVTAP = guests.named("guest2"), guests.named("macvtap1")


class Way(NamedTuple):
    """A path: the guest at its end, the relay of its host, and what the guest's NIC is put on, where it is not yet."""

    guest: Guest = GUEST
    relay: RelayKind | None = None
    to: NicTarget | None = None


WAYS = {
    "direct": Way(relay=RelayKind.DIRECT, to=NicTarget.RELAY),
    "switched": Way(relay=RelayKind.SWITCHED, to=NicTarget.RELAY),
    "bridge": Way(),
    "macvtap": Way(ON_MACVTAP),
    "vf": Way(to=NicTarget.VF),
}
"""By name: the relay of either kind, virtio on the kernel's bridge, virtio on a macvtap on a VF, and the VF alone."""


def ready(lab: Lab, names: Sequence[str]) -> str:
    """The host on which these paths can be laid, with their guests defined. Raises `Problem` where they cannot."""
    owner.refuse_another(places.clone(), alive=lab.alive())
    if not lab.alive():
        raise Problem("lab-down", "The lab is down", "Start it with: vferry lab up --relay", exit=Exit.REFUSED)
    if not lab.setup().relay:
        again = "Take it down, and up again: vferry lab down; vferry lab up --relay"
        raise Problem("lab-no-relay", "The lab's hosts are not made for a relay", again, exit=Exit.REFUSED)
    outer.install_missing()
    ends = list(dict.fromkeys(WAYS[name].guest for name in names))
    domains = guests.defined(lab, ends)
    host = at_one_host({guest.name: guests.place(domains, guest.name).host for guest in ends})
    if asyncio.run(relay.view(find_state(), host)).relay is not None:
        raise Problem(
            "lab-relay-there", f"{host} has a relay", f"Take it back: vferry relay disable {host}", exit=Exit.REFUSED
        )
    if GUEST in ends:
        refuse_moved(relays.do(lab, host, f"virsh dumpxml --inactive {GUEST.name}"))
    return host


def at_one_host(homes: dict[str, str]) -> str:
    """Where all guests are, by their names. Problem ``lab-guests-apart`` where that is not one host."""
    first, *others = homes.items()
    for name, host in others:
        if host != first[1]:
            raise Problem(
                "lab-guests-apart",
                f"{first[0]} is on {first[1]}, and {name} on {host}",
                f"Have them on one host: vferry lab guest {name}; vferry migrate {name} {first[1]}",
                exit=Exit.REFUSED,
            )
    return first[1]


def refuse_moved(persistent: str) -> None:
    """Raises `Problem` where a definition of `GUEST` does not have its NIC on the bridge, where the lab has it."""
    if defined_on(persistent, GUEST.mac) is not NicTarget.VIRTIO:
        raise Problem(
            "lab-guest-moved",
            f"{GUEST.name} is not on its bridge",
            f"Put it there: vferry guest nic {GUEST.name} {GUEST.mac} --to {NicTarget.VIRTIO}",
            exit=Exit.REFUSED,
        )


@contextmanager
def alone(lab: Lab) -> Iterator[None]:
    """No guest runs meanwhile but that of a path: an emulated CPU has none to spare. Those that did run afterwards."""
    on = {domain.name for domain in guests.everywhere(lab) if domain.on}
    try:
        guests.stop_others(lab, [])
        yield
    finally:
        guests.start(lab, [guest for guest in GUESTS if guest.name in on])


@contextmanager
def laid(lab: Lab, host: str, name: str, tell: Tell) -> Iterator[str]:
    """A path, with its guest, which answers at the address; all is as it was afterwards."""
    guest, kind, to = WAYS[name]
    with ExitStack() as stack:
        if kind:
            stack.enter_context(relays.relayed(lab, host, kind, guest.mac, tell))
        if to:
            stack.enter_context(relays.put(lab, host, guest, to, tell))
        stack.enter_context(relays.running(lab, host, guest))
        yield guest.address
