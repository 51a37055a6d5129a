"""NICs that are on something of their host's that no network mode moves, by libvirt's names for it.

What becomes of each in a migration: one on vDPA is bound to a device of its host (libvirt refuses it, or asks QEMU);
one on vhost-user needs a process behind the same socket at the destination; QEMU's own sockets are its host's; and
what the guest is connected to by slirp or passt ends at its host (`slirp_state_save` of libslirp keeps guestfwd's).
"""

from collections.abc import Collection, Iterator

from vferry.model.definition import mac_of, parse
from vferry.plan.facts import Finding, error, warning

_STAY = {
    "vdpa": "a vDPA device of its host",
    "vhostuser": "a vhost-user socket of its host, at which no relay of vferry's is",
    "server": "a TCP socket of QEMU, which waits at its host's address",
    "client": "a TCP connection of QEMU's, which its other end takes once",
    "udp": "a UDP tunnel of QEMU, which ends at its host's address",
}
_INTERRUPTED = {
    "user": "QEMU's or passt's own network stack, which ends its connections",
    "ethernet": "a tap that others connect, and vferry does not see to what",
}


def about(live: str, destination: str, relayed: Collection[str], *, accepted: bool) -> Iterator[Finding]:
    """What a running guest's definition says against its NICs going along; `accepted`: that they are interrupted.

    `relayed`: the MACs of those on the host's relay, which moves them.
    """
    for interface in parse(live).iterfind("devices/interface"):
        kind, nic = interface.get("type", ""), mac_of(interface) or "A NIC"
        if kind == "vhostuser" and nic in relayed:
            continue
        if kind in _STAY:
            yield error(
                "nic-stays-behind",
                f"{nic} is on {_STAY[kind]} ({kind}): it does not migrate",
                "Put it on a bridge, a macvtap or a VF, or take it away for the migration: virsh detach-interface",
            )
        elif kind in _INTERRUPTED:
            yield _interrupted(nic, _INTERRUPTED[kind], destination, accepted=accepted)
        elif kind == "mcast":
            yield warning(
                "multicast-nic",
                f"{nic} is on a multicast group of QEMU's, which {destination} need not be reached by",
                "Make sure that the network between the hosts passes it",
            )


def _interrupted(mac: str, what: str, destination: str, *, accepted: bool) -> Finding:
    message = f"{mac} is on {what}: it is interrupted"
    if accepted:
        return warning("nic-interrupted", message)
    return error(
        "nic-interrupted",
        message,
        f"Put it on a bridge that {destination} has as well, or accept that with --accept-interruption",
    )
