"""What a network's controller puts on a switch: ACLs that are stateful, and a tunnel between two hosts.

Both hosts are bridges of one Open vSwitch, so that one machine does the work of two. Their flows are what OVN makes of
ACLs `allow-related` on the ports of one logical switch (ovn-northd(8), "Ingress Table", "Egress Table"): a connection
is looked up in a zone of the port's, a new one is committed if an ACL allows it, what is sent on one goes by that ACL,
too, and answers go by without. The rest is dropped.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from vferry.host.relay_bridge import PortSpec
from vferry.trial.bouncer import ADDRESSES, MACS, PORT
from vferry.trial.namespace import Namespace
from vferry.trial.switch import IN_THE_KERNEL, IN_USER_SPACE, Bridge, Switch, port

RULES = 1000
NETWORK = 7
"""The tunnel's key."""
ENDS = ("192.0.2.1", "192.0.2.2")
"""The hosts' addresses."""
ROUTER_MACS = ("02:00:00:00:01:01", "02:00:00:00:01:02")
TRACKED, ALLOWED = 1, 2
"""Tables: of what has been looked up among the connections, and of what may go to where it is for."""
FIRST = 30_000
"""The priority of the first ACL."""


class Acl(NamedTuple):
    """Who may send whom what."""

    source: str
    destination: str
    protocol: str
    port: int

    def in_openflow(self) -> str:
        """As ovs-fields(7) writes it."""
        return f"{self.protocol},nw_src={self.source},nw_dst={self.destination},tp_dst={self.port}"

    def in_nft(self) -> str:
        """As nft(8) writes it."""
        return f"ip saddr {self.source} ip daddr {self.destination} {self.protocol} dport {self.port}"


def acls() -> list[Acl]:
    """The last one allows the traffic, and no other does."""
    source, destination = ADDRESSES
    others = (
        Acl(f"10.{at // 250}.{at % 250}.0/{24 + at % 9}", destination, ("tcp", "udp")[at % 2], 1024 + at)
        for at in range(RULES - 1)
    )
    return [*others, Acl(source, destination, "udp", PORT)]


class Side(NamedTuple):
    """A host of one NIC: its number, and the name of the NIC's port."""

    at: int
    nic: str

    @property
    def bridge(self) -> str:
        return f"host{self.at}"

    @property
    def tunnel(self) -> str:
        return f"tunnel{self.at}"

    def flows(self) -> list[str]:
        """Its pipeline, as ovs-ofctl(8) writes it."""
        zone = self.at + 1
        own, others = MACS[self.at], MACS[1 - self.at]
        return [
            f"table=0,ip actions=ct(zone={zone},table={TRACKED})",
            f"table={TRACKED},priority=65535,ct_state=+inv+trk actions=drop",
            f"table={TRACKED},priority=65534,ct_state=+est+rpl+trk,ip actions=goto_table:{ALLOWED}",
            *(
                f"table={TRACKED},priority={FIRST - at},ct_state={state},{acl.in_openflow()} actions={actions}"
                for at, acl in enumerate(acls())
                for state, actions in (
                    ("+new+trk", f"ct(commit,zone={zone}),resubmit(,{ALLOWED})"),
                    ("+est-rpl+trk", f"goto_table:{ALLOWED}"),
                )
            ),
            f"table={ALLOWED},dl_dst={own} actions=output:{self.nic}",
            f"table={ALLOWED},dl_dst={others} actions=output:{self.tunnel}",
        ]


def lay(switch: Switch, ports: Sequence[PortSpec]) -> None:
    """Puts two ports on bridges with rules, between which there is a tunnel."""
    UNDERLAYS[switch.datapath](switch)
    sides = [Side(at, each.name) for at, each in enumerate(ports)]
    switch.add(*(Bridge(side.bridge, (each, _tunnel(switch, side))) for side, each in zip(sides, ports, strict=True)))
    for side in sides:
        switch.put_flows(side.bridge, side.flows())


def _tunnel(switch: Switch, side: Side) -> PortSpec:
    # In user space it is taken from the way to the other end, and must not be named where the kernel has none to it.
    own = {"local_ip": ENDS[side.at]} if switch.datapath == IN_THE_KERNEL else {}
    return port(side.tunnel, "geneve", remote_ip=ENDS[1 - side.at], key=str(NETWORK), **own)


def _under_in_user_space(switch: Switch) -> None:
    """Two bridges with the hosts' addresses, and a wire between them.

    To the kernel, the addresses are not its own: it has a way to each by the other host's bridge.
    """
    names, wires = ("under0", "under1"), ("wire0", "wire1")
    patches = [port(wire, "patch", peer=peer) for wire, peer in (wires, wires[::-1])]
    switch.add(*(Bridge(name, (patch,), mac=mac) for name, patch, mac in zip(names, patches, ROUTER_MACS, strict=True)))
    for at, (name, wire) in enumerate(zip(names, wires, strict=True)):
        switch.namespace.ip(
            f"link set {name} up",
            f"address add {ENDS[at]}/24 dev {name} noprefixroute",
            f"route del local {ENDS[at]} table local",
            f"route add {ENDS[1 - at]} dev {name}",
        )
        switch.ask("tnl/neigh/set", name, ENDS[1 - at], ROUTER_MACS[1 - at])
        switch.put_flows(name, [f"in_port=LOCAL actions=output:{wire}", f"in_port={wire} actions=LOCAL"])


def take_addresses(namespace: Namespace) -> None:
    """The hosts' addresses are those of one, which sends to itself. Problem ``bench-no-link``."""
    namespace.ip("link set lo up", *(f"address add {end}/32 dev lo" for end in ENDS))


UNDERLAYS: dict[str, Callable[[Switch], None]] = {
    IN_USER_SPACE: _under_in_user_space,
    IN_THE_KERNEL: lambda switch: take_addresses(switch.namespace),
}
"""What is below the tunnel, by the datapath."""
