"""A virtio NIC on vhost-net is bound to what the kernel offers, and not only to its machine type.

A NIC that has been negotiated with more than the destination's kernel has is refused by QEMU there, as the last thing
of all: the copy was for nothing, and is undone. Linux 6.2 has VIRTIO_F_RING_RESET, for one, and 6.1 has not.
"""

from collections.abc import Iterator

from vferry.model.host import Inventory
from vferry.plan.facts import Facts, Finding, info, warning
from vferry.plan.plan import VfMove

NAMES = {33: "VIRTIO_F_ACCESS_PLATFORM", 34: "VIRTIO_F_RING_PACKED", 35: "VIRTIO_F_IN_ORDER", 40: "VIRTIO_F_RING_RESET"}
"""By their numbers in virtio's specification, those that some vhost-net has and another has not."""


def lacking(source: Inventory, destination: Inventory) -> int:
    """The bits that the destination's vhost-net lacks; none where either does not say."""
    if source.vhost_features is None or destination.vhost_features is None:
        return 0
    return source.vhost_features & ~destination.vhost_features


def about(facts: Facts, moves: list[VfMove]) -> Iterator[Finding]:
    """What becomes of the guest's virtio NICs, and of the one that is plugged for the migration."""
    bits = lacking(facts.source, facts.destination)
    if not bits:
        return
    there = facts.destination.name
    lacks = f"the kernel of {there} lacks {', '.join(_names(bits))} in vhost-net"
    own = [nic.mac for nic in facts.guest.nics if nic.model == "virtio" and nic.socket is None]
    if own:
        yield warning(
            "vhost-lacks",
            f"{lacks[0].upper()}{lacks[1:]}: if {', '.join(own)} uses that, as it may where the guest was started on "
            "a host that has it, QEMU refuses the NIC at the end of the copy, and the migration is undone",
            f"Start the guest on {there}, or with <driver name='qemu'/> for these NICs",
        )
    if any(move.stands_by and not move.standby_stays for move in moves):
        yield info(
            "standby-without-vhost",
            f"QEMU itself serves the standby NIC, since {lacks}: plugging a VF stalls it for a moment",
        )


def _names(bits: int) -> Iterator[str]:
    for bit in range(bits.bit_length()):
        if bits >> bit & 1:
            yield NAMES.get(bit, f"feature {bit} of virtio")
