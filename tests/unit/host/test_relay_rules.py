"""The rules of `vferry bench relay`, and their tunnel, in a real Open vSwitch in user space: what passes them."""

from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from ovn_chassis import Guest, Logical, as_root
from ovn_frames import arrives, mark, reached
from ovs_database import find_schema, find_tool, needed

from vferry.model.problem import Problem
from vferry.trial import relay_rules
from vferry.trial import switch as switches
from vferry.trial.bouncer import ADDRESSES, MACS
from vferry.trial.namespace import Namespace, run
from vferry.trial.relay_rules import RULES, acls
from vferry.trial.round_trips import packet
from vferry.trial.switch import IN_USER_SPACE, Bridge, Switch, port

NICS = ("nic0", "nic1")
UDP_TO, SOURCE = slice(36, 38), slice(26, 30)


class Hosts:
    """The switch, and at each of the two ports a namespace."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        namespace = stack.enter_context(Namespace())
        daemon = Path(find_tool("ovs-vswitchd") or "")
        self.switch = stack.enter_context(Switch(folder / "switch", daemon, IN_USER_SPACE, namespace))
        self.ends = []
        for nic, mac, address in zip(NICS, MACS, ADDRESSES, strict=True):
            guest = Guest(stack.enter_context(Namespace()), Logical(name=nic, mac=mac, address=address))
            stack.callback(guest.close)
            here, there = str(namespace.pid), str(guest.namespace.pid)
            link = ["ip", "link", "add", "name", nic, "netns", here, "type", "veth"]
            run([*link, "peer", "name", "eth0", "netns", there])
            for where, name in ((namespace, nic), (guest.namespace, "eth0")):
                where.run(["ip", "link", "set", name, "addrgenmode", "none", "up"])
            self.ends.append(guest)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    needed("ovs-vswitchd", "ovs-ofctl")
    monkeypatch.setattr(switches, "SCHEMA", find_schema())
    with ExitStack() as stack:
        yield Hosts(stack, tmp_path)


def sent(at: int) -> bytes:
    """A packet of the bench's, which no other one is like."""
    return packet(at, 64)[:-8] + mark()


def changed(frame: bytes, part: slice, value: bytes) -> bytes:
    return frame[: part.start] + value + frame[part.stop :]


@as_root
def test_a_packet_of_the_bench_passes_over_the_tunnel_and_its_answer_and_nothing_else(made: Hosts) -> None:
    here, there = made.ends
    relay_rules.lay(made.switch, [port(nic) for nic in NICS])
    # Nobody has asked yet.
    assert not reached([sent(1)], there, here)
    assert arrives([sent(0)], here, there)
    assert arrives([sent(1)], there, here)
    forbidden = changed(sent(0), UDP_TO, b"\x00\x0a"), changed(sent(0), SOURCE, bytes((198, 18, 0, 7)))
    assert not reached(forbidden, here, there)
    flows = made.switch.ask("dpctl/dump-flows")
    assert all(each in flows for each in ("tnl_push", "tnl_pop", "geneve(vni=0x7)", "ct(zone=1)", "ct(zone=2)"))


@as_root
def test_a_bridge_that_learns_passes_all(made: Hosts) -> None:
    here, there = made.ends
    made.switch.add(Bridge("lan", tuple(port(nic) for nic in NICS), learns=True))
    assert arrives([changed(sent(0), UDP_TO, b"\x00\x0a")], here, there)


@as_root
def test_a_port_that_cannot_be_made_is_a_problem(made: Hosts) -> None:
    with pytest.raises(Problem, match="nic9"):
        made.switch.add(Bridge("lan", (port("nic9"),)))
    with pytest.raises(Problem, match="ovs-ofctl"):
        made.switch.put_flows("lan", ["nonsense"])


def test_a_thousand_acls_of_which_the_last_one_is_for_the_traffic() -> None:
    found = acls()
    assert len(set(found)) == len(found) == RULES
    assert found[-1].in_openflow() == "udp,nw_src=198.18.0.1,nw_dst=198.18.0.2,tp_dst=9"
    assert found[-1].in_nft() == "ip saddr 198.18.0.1 ip daddr 198.18.0.2 udp dport 9"
    for each in found[:-1]:
        assert ip_address(ADDRESSES[0]) not in ip_network(each.source)
