"""What a network's controller puts on a switch: ACLs that are stateful, and a tunnel between two hosts.

Both hosts are bridges of one Open vSwitch, so that one machine does the work of two. Their flows are what OVN makes of
ACLs `allow-related` on the ports of one logical switch (ovn-northd(8), "Ingress Table", "Egress Table"): a connection
is looked up in a zone of the port's, a new one is committed if an ACL allows it, what is sent on one goes by that ACL,
too, and answers go by without. The rest is dropped.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from vferry.host.relay_switch import PortSpec
from vferry.trial.bouncer import ADDRESSES, MACS, PORT
from vferry.trial.switch import IN_THE_KERNEL, IN_USER_SPACE, Switch, set_bridge, set_port

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


def acls() -> list[str]:
    """What ACLs match, in the words of ovs-fields(7): the last one, and no other, the traffic."""
    others = [
        f"{protocol},nw_src=10.{at // 250}.{at % 250}.0/{24 + at % 9},tp_dst={1024 + at}"
        for at, protocol in zip(range(RULES - 1), ("tcp", "udp") * RULES, strict=False)
    ]
    source, destination = ADDRESSES
    return [*others, f"udp,nw_src={source},nw_dst={destination},tp_dst={PORT}"]


class Side(NamedTuple):
    """A host of one NIC: its number, and the names of its bridge, of the NIC's port and of the tunnel's."""

    at: int
    bridge: str
    nic: str
    tunnel: str

    def flows(self) -> list[str]:
        """Its pipeline, as ovs-ofctl(8) writes it."""
        zone = self.at + 1
        own, others = MACS[self.at], MACS[1 - self.at]
        return [
            f"table=0,ip actions=ct(zone={zone},table={TRACKED})",
            f"table={TRACKED},priority=65535,ct_state=+inv+trk actions=drop",
            f"table={TRACKED},priority=65534,ct_state=+est+rpl+trk,ip actions=goto_table:{ALLOWED}",
            *(
                f"table={TRACKED},priority={FIRST - at},ct_state={state},{match} actions={actions}"
                for at, match in enumerate(acls())
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
    sides = [Side(at, f"host{at}", port.name, f"tunnel{at}") for at, port in enumerate(ports)]
    commands = [command for side, port in zip(sides, ports, strict=True) for command in _bridge(switch, side, port)]
    UNDERLAYS[switch.datapath](switch)
    switch.configure(*commands)
    for side in sides:
        switch.put_flows(side.bridge, side.flows())


def _bridge(switch: Switch, side: Side, port: PortSpec) -> tuple[str, ...]:
    local, remote = ENDS[side.at], ENDS[1 - side.at]
    # In user space it is taken from the way to the other end, and must not be named where the kernel has none to it.
    own = {"local_ip": local} if switch.datapath == IN_THE_KERNEL else {}
    tunnel = {"remote_ip": remote, "key": str(NETWORK), **own}
    return (
        *set_bridge(side.bridge, switch.datapath),
        *set_port(side.bridge, port),
        *set_port(side.bridge, PortSpec(name=side.tunnel, interfaces={side.tunnel: ("geneve", tunnel)})),
    )


def _under_in_user_space(switch: Switch) -> None:
    """Two bridges with the hosts' addresses, and a wire between them.

    To the kernel, the addresses are not its own: it has a way to each by the other host's bridge.
    """
    names, wires = ("under0", "under1"), ("wire0", "wire1")
    bridges = (command for name in names for command in set_bridge(name, switch.datapath))
    macs = (f"set bridge {name} other_config:hwaddr={mac}" for name, mac in zip(names, ROUTER_MACS, strict=True))
    patches = (PortSpec(name=wire, interfaces={wire: ("patch", {"peer": peer})}) for wire, peer in (wires, wires[::-1]))
    ports = (command for name, patch in zip(names, patches, strict=True) for command in set_port(name, patch))
    # One end of a patch without the other is an error.
    switch.configure(*bridges, *macs, *ports)
    for at, (name, wire) in enumerate(zip(names, wires, strict=True)):
        switch.run(
            f"link set {name} up",
            f"address add {ENDS[at]}/24 dev {name} noprefixroute",
            f"route del local {ENDS[at]} table local",
            f"route add {ENDS[1 - at]} dev {name}",
        )
        switch.ask("tnl/neigh/set", name, ENDS[1 - at], ROUTER_MACS[1 - at])
        switch.put_flows(name, [f"in_port=LOCAL actions=output:{wire}", f"in_port={wire} actions=LOCAL"])


def _under_in_the_kernel(switch: Switch) -> None:
    """The hosts' addresses are those of one, which sends to itself."""
    switch.run("link set lo up", *(f"address add {end}/32 dev lo" for end in ENDS))


UNDERLAYS: dict[str, Callable[[Switch], None]] = {
    IN_USER_SPACE: _under_in_user_space,
    IN_THE_KERNEL: _under_in_the_kernel,
}
"""What is below the tunnel, by the datapath."""
