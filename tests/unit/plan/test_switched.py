"""A guest's NIC on a switched relay: the port that it gets on another host, and the ways on it and off it."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from fakes import facts as f
from fakes.codes import codes_of
from fakes.relay import HOST, with_pf
from fakes.samples import MAC, definition
from vferry.host.api import Define, Definition, JoinRelay, LeaveRelay, Operation, SetVf
from vferry.model.guest import Guest, GuestState, Nic, VfRef
from vferry.model.host import NO_MAC, Bridge, Inventory, LinkState, Network, VfSettings
from vferry.model.ovn import KnownPort, LogicalPort
from vferry.model.relay import (
    ChainPlace,
    Relay,
    RelayBridge,
    RelayKind,
    RelayPort,
    RelayState,
    RelayUplink,
    SwitchPlace,
)
from vferry.plan import switch_place
from vferry.plan.facts import Facts, Refusal
from vferry.plan.guest_nic import assess
from vferry.plan.nic_definition import on_bridge, on_relay, on_vf
from vferry.plan.nic_plan import NicAssessment, NicTarget
from vferry.plan.nic_port import AskedPort
from vferry.plan.plan import Announced, NetworkMode, Rebinding

SECOND = "52:54:00:12:34:57"
RELAY = NetworkMode.RELAY

# --- to another host -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [None, RELAY])
def test_a_nic_gets_a_port_of_the_destination_s_bridge_with_its_vlan_and_its_rate(mode: NetworkMode | None) -> None:
    assessment = f.found(f.on_switch, mode=mode)
    assert assessment.findings == ()
    plan = assessment.plan
    assert plan is not None
    (port,) = plan.ports
    assert (plan.network_mode, plan.moves, plan.plain_macs) == ("relay", (), ("52:54:00:00:aa:01",))
    assert (port.source, port.destination, port.uplink, port.network) == (f.SWITCH_PORT, f.SWITCH_PORT, "pf0", "lan")
    assert (plan.source_vfs, plan.destination_vfs, plan.attached, plan.forwarded) == ((), (), {}, ())
    announced = [(each.interface, each.vlan, each.uplink) for each in plan.announced if each.mac == MAC]
    assert announced == [("pf0", 42, None)]
    assert plan.reason == (
        "relay was asked for" if mode else "it keeps its virtio NIC, which is a port of the relay there, too"
    )


def test_its_bridge_may_have_another_name_there() -> None:
    bridge = structs.replace(f.SWITCHED.bridges[0], name="relay3")
    (port,) = f.planned(f.both(f.on_switch, f.switch_there(bridges=(bridge,)))).ports
    assert port.destination.switch == structs.replace(f.PLACE, bridge="relay3")
    assert port.source.switch == f.PLACE


def test_it_is_the_bridge_on_its_network() -> None:
    other = RelayBridge(name="relay9", uplinks=(RelayUplink(name="relay9-up0", address="0000:09:10.0"),), mtu=9000)
    bridges = (other, *f.SWITCHED.bridges)
    (port,) = f.planned(f.both(f.on_switch, f.switch_there(bridges=bridges))).ports
    assert port.destination.switch == f.PLACE


def bonded(facts: Facts, *, first_up: bool) -> Facts:
    """The destination's bridge has an uplink on each of two PFs."""
    (first,) = facts.destination.pfs
    vfs = tuple(structs.replace(vf, pf="pf1", address=vf.address.replace("0000:01", "0000:02")) for vf in first.vfs)
    uplinks = (f.UPLINK, RelayUplink(name="relay0-up1", address=vfs[3].address))
    bridge = RelayBridge(name="relay0", uplinks=uplinks, mtu=9000)
    return f.both(
        f.switch_there(bridges=(bridge,)),
        f.host(
            "destination",
            networks={"lan": Network(pf="pf0", more_pfs=("pf1",), bridge="br0")},
            pfs=(structs.replace(first, up=first_up), structs.replace(first, name="pf1", vfs=vfs)),
        ),
    )(facts)


@pytest.mark.parametrize(("first_up", "pf"), [(True, "pf0"), (False, "pf1")])
def test_it_is_announced_by_the_uplink_that_is_used(*, first_up: bool, pf: str) -> None:
    plan = f.planned(f.both(f.on_switch, lambda facts: bonded(facts, first_up=first_up)))
    assert plan.ports[0].uplink == pf
    assert [each.interface for each in plan.announced if each.mac == MAC] == [pf]


def test_it_does_not_matter_whether_its_guest_answers() -> None:
    assert f.planned(f.both(f.on_switch, f.silent)).network_mode == "relay"


def beside(nic: Nic) -> f.Change:
    def change(facts: Facts) -> Facts:
        named = nic.socket or (nic.vf.address if nic.vf else "")
        xml = definition(f.SOCKET, named, standby=False)
        relay = facts.source.relay
        assert relay is not None
        more = structs.replace(f.SWITCH_PORT, mac=SECOND, socket=nic.socket or "/x")
        ports = (*relay.ports, more) if nic.socket else relay.ports
        changed = f.both(
            f.guest(nics=(*facts.guest.nics, nic)),
            f.host("source", relay=structs.replace(relay, ports=ports)),
            f.vf("source", 2, settings=structs.replace(f.SETTINGS, mac=SECOND)),
        )(facts)
        return structs.replace(changed, definition=Definition(live=xml, persistent=xml))

    return f.both(f.on_switch, change)


ON_VF = Nic(mac=SECOND, model="hostdev", alias="net2", vf=VfRef(pf="pf0", index=2, address=f.address(2)))
ON_SWITCH = Nic(mac=SECOND, model="virtio", alias="net2", socket="/run/second.sock", relay_bridge="relay0")


@pytest.mark.parametrize(
    ("nic", "mode", "modes", "ports"),
    [(ON_SWITCH, None, "relay", 2), (ON_VF, NetworkMode.DETACH, "detach+relay", 1), (ON_VF, RELAY, "switch+relay", 1)],
)
def test_one_beside_others_is_moved_in_its_own_way(nic: Nic, mode: NetworkMode, modes: str, ports: int) -> None:
    plan = f.planned(beside(nic), mode=mode, accept_interruption=True)
    assert (plan.network_mode, len(plan.ports)) == (modes, ports)


def test_one_refused_is_said_with_all_else() -> None:
    found = f.found(f.both(beside(ON_VF), f.host("destination", relay=None), f.pf("destination", vfs=())))
    assert {finding.code for finding in found.errors} >= {"relay-missing", "no-free-vf"}
    assert found.plan is None


@pytest.mark.parametrize("before", ["c1", None, "c1,c9"])
def test_a_port_of_ovn_s_is_bound_at_both_hosts_and_then_at_the_destination(before: str | None) -> None:
    """What is undone gives back what was there; and neither a network nor an uplink of ours is asked for."""
    was = structs.replace(f.LOGICAL, requested_chassis=before)
    known = {"web-0": KnownPort(binding=was)}
    change = f.both(f.on_ovn, lambda facts: structs.replace(facts, northbound=known))
    plan = f.planned(change)
    (port,) = plan.ports
    assert port.rebinding == Rebinding(
        before=was,
        both=LogicalPort(name="web-0", requested_chassis="c1,c2", activation_strategy="rarp"),
        after=LogicalPort(name="web-0", requested_chassis="c2"),
    )
    assert port.destination.switch == SwitchPlace(bridge="br-int", logical_port="web-0")
    assert (plan.rebinds, plan.network_mode, port.network, port.uplink) == (True, "relay", None, None)
    announced = [each for each in plan.announced if each.mac == MAC]
    assert announced == [Announced(mac=MAC, interface=None)], "OVN tells of its addresses"


MISSING = "ovn-no-mapping"


@pytest.mark.parametrize(
    ("networks", "mapped", "code"),
    [
        ((), (), None),
        ((), ("lan",), None),
        (("lan",), ("lan",), None),
        (("lan",), ("other", "lan"), None),
        (("lan",), (), MISSING),
        (("lan",), ("other",), MISSING),
        (("lan", "wan"), ("wan",), None),
        (("lan", "wan"), ("other",), MISSING),
    ],
)
def test_a_port_of_ovn_s_goes_where_its_switch_has_a_way_out(
    networks: tuple[str, ...], mapped: tuple[str, ...], code: str | None
) -> None:
    found = f.found(f.both(f.on_ovn, f.localnet(*networks), f.chassis("destination", name="c2", networks=mapped)))
    assert [each.code for each in found.errors] == ([code] if code else [])
    for error in found.errors:
        assert " or ".join(networks) in error.message
        assert f"external_ids:ovn-bridge-mappings={networks[0]}:BRIDGE" in error.remedy


@pytest.mark.parametrize(
    ("here", "there", "joined"),
    [
        (("geneve",), ("geneve",), True),
        (("geneve", "vxlan"), ("vxlan",), True),
        (("geneve",), (), True),
        ((), ("geneve",), True),
        (("geneve",), ("vxlan",), False),
        (("geneve",), ("stt", "vxlan"), False),
    ],
)
def test_a_port_of_ovn_s_goes_where_a_tunnel_goes(
    here: tuple[str, ...], there: tuple[str, ...], *, joined: bool
) -> None:
    """Where one of the two says nothing of its own, nobody guesses."""
    ends = f.chassis("source", encap_types=here), f.chassis("destination", name="c2", encap_types=there)
    found = f.found(f.both(f.on_ovn, *ends))
    assert [each.code for each in found.errors] == ([] if joined else ["ovn-no-tunnel"])
    for error in found.errors:
        assert f"({', '.join(here)})" in error.message
        assert f"({', '.join(there)})" in error.message
        assert f"external_ids:ovn-encap-type={','.join(here)}" in error.remedy


# --- what a port does of what a VF did -------------------------------------------------------------------

BRIDGE = RelayBridge(name="relay0", uplinks=(RelayUplink(name="relay0-up0", address="0000:01:10.1"),))
PLAIN = VfSettings(mac=MAC, vlan=42, qos=0, trust=True, link_state=LinkState.AUTO, min_tx_rate=0, max_tx_rate=500)


@given(
    vlan=st.one_of(st.none(), st.integers(0, 4094)),
    rate=st.one_of(st.none(), st.integers(0, 200_000)),
    others=st.fixed_dictionaries(
        {
            "qos": st.sampled_from([None, 0, 3]),
            "min_tx_rate": st.sampled_from([None, 0, 10]),
            "link_state": st.sampled_from([None, *LinkState]),
            "trust": st.sampled_from([None, True, False]),
            "spoof_check": st.sampled_from([None, True, False]),
        }
    ),
)
def test_it_is_carried_or_refused_and_back_again(vlan: int | None, rate: int | None, others: dict[str, object]) -> None:
    settings = VfSettings(mac=MAC, vlan=vlan, max_tx_rate=rate, **others)  # type: ignore[arg-type]
    lost = others["qos"] or others["min_tx_rate"] or others["link_state"] is LinkState.DISABLE
    if lost:
        with pytest.raises(Refusal) as caught:
            switch_place.place(BRIDGE, settings, MAC)
        assert caught.value.finding.remedy
        return
    place = switch_place.place(BRIDGE, settings, MAC)
    port = RelayPort(guest="web", mac=MAC, socket="/x", switch=place)
    back = switch_place.settings_of(port)
    assert (back.vlan or 0, back.max_tx_rate or 0) == (vlan or 0, rate or 0)
    warned = [finding.code for finding in switch_place.about(MAC, settings)]
    assert warned == (["relay-unchecked"] if others["spoof_check"] else [])


# --- on it, and off it -----------------------------------------------------------------------------------

TAKEN, FREE = HOST.pfs[0].vfs
REF = VfRef(pf=FREE.pf, index=FREE.index, address=FREE.address)
OPERATION = "nic-525400123456-1"
SOCKET = "/run/vferry-relay/525400123456.sock"
MINE = RelayBridge(name="relay0", uplinks=(RelayUplink(name="relay0-up0", address=TAKEN.address),), mtu=9000)
PLACE = SwitchPlace(bridge="relay0", vlan=42, max_tx_rate=500)
PORT = RelayPort(guest="web", mac=MAC, socket=SOCKET, switch=PLACE, mtu=9000)
SWITCHED = Relay(
    operation="relay-1",
    state=RelayState.ENABLED,
    kind=RelayKind.SWITCHED,
    uplinks=("pf0",),
    cores=(7,),
    bridges=(MINE,),
)
BRIDGED = (
    f"<domain><name>web</name><devices><interface type='bridge'><mac address='{MAC}'/></interface></devices></domain>"
)
BASE = structs.replace(
    with_pf(HOST, "pf0", vfs=(structs.replace(TAKEN, claim="relay-1"), FREE)),
    networks={"a": Network(pf="pf0", bridge="br0"), "b": Network(pf="pf2")},
    bridges=(Bridge(name="br0", ports=("pf0",)),),
    relay=SWITCHED,
)
NICS = {
    NicTarget.VF: Nic(mac=MAC, model="hostdev", alias="", vf=REF),
    NicTarget.RELAY: Nic(mac=MAC, model="virtio", alias="", socket=SOCKET, relay_bridge="relay0", vlan=42),
    NicTarget.VIRTIO: Nic(mac=MAC, model="virtio", alias="", bridge="br0"),
}
XML = {
    NicTarget.VF: on_vf(BRIDGED, MAC, FREE.address, 42),
    NicTarget.RELAY: on_relay(BRIDGED, MAC, SOCKET),
    NicTarget.VIRTIO: BRIDGED,
}


def used(**settings: object) -> Inventory:
    """The host whose free VF the guest has."""
    vf = structs.replace(FREE, guest="web", settings=structs.replace(PLAIN, **settings))
    return with_pf(BASE, "pf0", vfs=(BASE.pfs[0].vfs[0], vf))


HOSTS = {
    NicTarget.VF: used(),
    NicTarget.RELAY: structs.replace(BASE, relay=structs.replace(SWITCHED, ports=(PORT,))),
    NicTarget.VIRTIO: BASE,
}


def found(of: NicTarget, to: NicTarget, host: Inventory | None = None, asked: AskedPort | None = None) -> NicAssessment:
    guest = Guest(name="web", uuid="u", host="host1", nics=(NICS[of],), state=GuestState.OFF)
    return assess(host or HOSTS[of], guest, XML[of], MAC, to, OPERATION, asked)


def asked(of: NicTarget, to: NicTarget, host: Inventory | None = None) -> list[Operation[object]]:
    plan = found(of, to, host).plan
    assert plan is not None, found(of, to, host).errors
    return [operation for step in plan.steps for operation in step.apply]


WIPE = SetVf(pf="pf0", index=1, settings=VfSettings(mac=NO_MAC, vlan=0, qos=0, trust=False))


def test_from_a_vf_its_vlan_and_its_rate_go_along_and_the_vf_is_wiped() -> None:
    join, define, left = asked(NicTarget.VF, NicTarget.RELAY)
    assert join == JoinRelay(port=PORT)
    assert define == Define(xml=on_relay(XML[NicTarget.VF], MAC, SOCKET))
    assert isinstance(left, SetVf)
    assert (left.index, left.settings.mac, left.settings.max_tx_rate) == (1, NO_MAC, 0)
    plan = found(NicTarget.VF, NicTarget.RELAY).plan
    assert plan is not None
    assert plan.vfs == (FREE.address,), "what is wiped is claimed, and no VF is taken"
    assert "join 52:54:00:12:34:56 to bridge relay0, VLAN 42 by the relay" in plan.steps[0].summary


def test_from_a_bridge_no_vf_is_needed() -> None:
    host = with_pf(BASE, "pf0", vfs=(BASE.pfs[0].vfs[0],))
    join, define = asked(NicTarget.VIRTIO, NicTarget.RELAY, host)
    place = SwitchPlace(bridge="relay0")
    assert join == JoinRelay(port=structs.replace(PORT, switch=place))
    assert define == Define(xml=on_relay(BRIDGED, MAC, SOCKET))


def test_to_a_vf_with_the_vlan_and_the_rate_of_the_port() -> None:
    define, rate, leave = asked(NicTarget.RELAY, NicTarget.VF)
    assert define == Define(xml=on_vf(XML[NicTarget.RELAY], MAC, FREE.address, 42))
    assert rate == SetVf(pf="pf0", index=1, settings=VfSettings(max_tx_rate=500))
    assert leave == LeaveRelay(guest="web", mac=MAC)


def test_to_a_bridge_in_the_vlan_of_the_port() -> None:
    define, leave = asked(NicTarget.RELAY, NicTarget.VIRTIO)
    assert define == Define(xml=on_bridge(XML[NicTarget.RELAY], MAC, BASE.attachment("a"), 42))
    assert leave == LeaveRelay(guest="web", mac=MAC)


@pytest.mark.parametrize("of", NicTarget)
@pytest.mark.parametrize("to", NicTarget)
def test_every_step_has_its_way_back(of: NicTarget, to: NicTarget) -> None:
    plan = found(of, to).plan
    assert plan is not None
    assert all(step.undo for step in plan.steps)
    assert (not plan.steps) == (of is to)
    joins = [each for step in plan.steps for each in (*step.apply, *step.undo) if isinstance(each, JoinRelay)]
    assert all(each.port.switch == PLACE or each.port.switch == SwitchPlace(bridge="relay0") for each in joins)


@pytest.mark.parametrize("check", [True, False, None])
def test_what_a_switch_does_not_check_is_said(check: bool | None) -> None:  # noqa: FBT001
    assessed = found(NicTarget.VF, NicTarget.RELAY, used(spoof_check=check))
    assert [finding.code for finding in assessed.findings] == (["relay-unchecked"] if check else [])
    assert assessed.plan is not None
    assert found(NicTarget.VF, NicTarget.VIRTIO, used(spoof_check=check)).findings == ()


CHAIN = ChainPlace(name="web", serves=False, within=True, vlan=7)
IN_CHAIN = structs.replace(PORT, mac=SECOND, switch=structs.replace(PLACE, chain=CHAIN))
REFUSED: list[tuple[str, Callable[[], Inventory]]] = [
    ("port-cannot", lambda: used(qos=3)),
    ("port-cannot", lambda: used(min_tx_rate=10)),
    ("port-cannot", lambda: used(link_state=LinkState.DISABLE)),
    ("relay-missing", lambda: structs.replace(used(), relay=structs.replace(SWITCHED, bridges=()))),
    ("relay-missing", lambda: structs.replace(used(), relay=structs.replace(SWITCHED, state=RelayState.ENABLING))),
    ("pf-missing", lambda: with_pf(used(), "pf0", up=False)),
    ("chain-vlan-used", lambda: structs.replace(used(), relay=structs.replace(SWITCHED, ports=(IN_CHAIN,)))),
]


@pytest.mark.parametrize(("code", "host"), REFUSED)
def test_what_stands_in_the_way_is_said_with_what_to_do(code: str, host: Callable[[], Inventory]) -> None:
    assessed = found(NicTarget.VF, NicTarget.RELAY, host())
    assert [(each.code, bool(each.remedy)) for each in assessed.errors] == [(code, True)]
    assert assessed.plan is None


@pytest.mark.parametrize("to", [NicTarget.VF, NicTarget.VIRTIO])
def test_a_nic_in_a_chain_stays_on_the_relay(to: NicTarget) -> None:
    port = structs.replace(PORT, switch=structs.replace(PLACE, chain=CHAIN))
    host = structs.replace(HOSTS[NicTarget.RELAY], relay=structs.replace(SWITCHED, ports=(port,)))
    assessed = found(NicTarget.RELAY, to, host)
    assert [each.code for each in assessed.errors] == ["nic-in-chain"]
    assert "vferry relay chain host1 web --none" in assessed.errors[0].remedy


ON_OVN = structs.replace(BASE, chassis=f.CHASSIS)
WEB = AskedPort(name="web-0", known=KnownPort(binding=LogicalPort(name="web-0"), macs=(MAC,)))


def test_as_a_port_of_ovn_s_it_is_on_the_integration_bridge() -> None:
    plan = found(NicTarget.VIRTIO, NicTarget.RELAY, ON_OVN, WEB).plan
    assert plan is not None
    assert plan.logical_port == "web-0"
    join = plan.steps[0].apply[0]
    assert isinstance(join, JoinRelay)
    assert join.port.switch == SwitchPlace(bridge="br-int", logical_port="web-0", network="a")
    assert join.port.joined_to == "bridge br-int, as web-0"


@pytest.mark.parametrize(("network", "known"), [("a", True), ("z", False), (None, False)])
def test_off_ovn_it_goes_back_to_the_network_that_it_was_on(network: str | None, *, known: bool) -> None:
    """Where its host has that; nobody guesses."""
    place = SwitchPlace(bridge="br-int", logical_port="web-0", network=network)
    relay = structs.replace(SWITCHED, ports=(structs.replace(PORT, switch=place),))
    nic = structs.replace(NICS[NicTarget.RELAY], relay_bridge="br-int", vlan=0)
    host = structs.replace(ON_OVN, relay=relay)
    guest = Guest(name="web", uuid="u", host="host1", nics=(nic,), state=GuestState.OFF)
    assessed = assess(host, guest, XML[NicTarget.RELAY], MAC, NicTarget.VIRTIO, OPERATION)
    assert [each.code for each in assessed.errors] == ([] if known else ["network-unknown"])
    assert (assessed.plan is not None) == known


REFUSED_BY_OVN: list[tuple[str, NicTarget, Inventory]] = [
    ("ovn-missing", NicTarget.VIRTIO, BASE),
    ("port-is-ovns", NicTarget.VF, structs.replace(used(), chassis=f.CHASSIS)),
    (
        "relay-not-switched",
        NicTarget.VIRTIO,
        structs.replace(ON_OVN, relay=structs.replace(SWITCHED, kind=RelayKind.DIRECT)),
    ),
]


@pytest.mark.parametrize(("code", "of", "host"), REFUSED_BY_OVN)
def test_what_keeps_it_from_being_a_port_of_ovn_s_is_said(code: str, of: NicTarget, host: Inventory) -> None:
    assessed = found(of, NicTarget.RELAY, host, WEB)
    assert [(each.code, bool(each.remedy)) for each in assessed.errors] == [(code, True)]


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (PLAIN, "port-is-ovns"),
        (structs.replace(PLAIN, vlan=0), "port-is-ovns"),
        (structs.replace(PLAIN, vlan=0, max_tx_rate=0, qos=3), "port-cannot"),
        (structs.replace(PLAIN, vlan=0, max_tx_rate=None), None),
    ],
)
def test_what_ovn_gives_a_port_no_vf_had(settings: VfSettings, code: str | None) -> None:
    if code is None:
        place = switch_place.bound(f.CHASSIS, "web-0", settings, MAC, "a")
        assert place == SwitchPlace(bridge="br-int", logical_port="web-0", network="a")
        return
    with pytest.raises(Refusal) as caught:
        switch_place.bound(f.CHASSIS, "web-0", settings, MAC, "a")
    assert caught.value.finding.code == code


def test_every_code_is_tested() -> None:
    assert codes_of({"switch_place"}) == {"port-cannot", "relay-unchecked", "port-is-ovns", "chain-vlan-used"}


def test_asked_for_again_it_goes_on_with_the_port_that_is_there() -> None:
    """A controller has died between the port and the definition."""
    host = structs.replace(BASE, relay=structs.replace(SWITCHED, ports=(structs.replace(PORT, switch=PLACE),)))
    there = found(NicTarget.VIRTIO, NicTarget.RELAY, host).plan
    assert there is not None
    assert [step.name for step in there.steps] == ["join-relay", "define"]
    back = found(NicTarget.VIRTIO, NicTarget.VIRTIO, host).plan
    assert back is not None
    assert [step.name for step in back.steps] == ["leave-relay"]
    assert back.vfs == ()
