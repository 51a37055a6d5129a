"""A service chain, as a pure function of a relay's ports: which VLANs they get, and what stands in the way."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fakes import facts as f
from fakes.codes import codes_of
from fakes.relay import HOST
from vferry.host.api import Announce, JoinRelay, TeachBridge
from vferry.model.host import Inventory
from vferry.model.relay import (
    ChainPlace,
    Relay,
    RelayBridge,
    RelayGateway,
    RelayKind,
    RelayPort,
    RelayState,
    RelayUplink,
    SwitchPlace,
)
from vferry.network.modes import stages
from vferry.plan import switch_place
from vferry.plan.facts import Facts, Refusal
from vferry.plan.plan import Announced
from vferry.plan.relay_chain import ChainAssessment, ChainWishes, Service, assess_chain, assess_no_chain


def mac(number: int) -> str:
    return f"52:54:00:00:00:{number:02x}"


def make_port(number: int, guest: str, vlan: int, **differing: Any) -> RelayPort:
    usual: dict[str, Any] = {"bridge": "relay0", "vlan": vlan}
    place = SwitchPlace(**(usual | differing))
    return RelayPort(guest=guest, mac=mac(number), socket="/run/s", switch=place)


GUESTS = (make_port(1, "guest1", 7), make_port(2, "guest2", 7, max_tx_rate=100))
FIRST = (make_port(0x21, "first", 1001), make_port(0x22, "first", 1002))
SECOND = (make_port(0x31, "second", 1003), make_port(0x32, "second", 1004))
OTHER = make_port(9, "other", 7)
RELAY = Relay(
    operation="relay-1",
    state=RelayState.ENABLED,
    kind=RelayKind.SWITCHED,
    uplinks=("pf0",),
    cores=(7,),
    bridges=(RelayBridge(name="relay0", uplinks=(RelayUplink(name="relay0-up0", address="0000:01:10.0"),)),),
    ports=(*GUESTS, *FIRST, *SECOND, OTHER),
)
WISHES = ChainWishes(
    name="web",
    served=(mac(1), mac(2)),
    services=(Service(inward=mac(0x21), outward=mac(0x22)), Service(inward=mac(0x31), outward=mac(0x32))),
    vlans=(901, 902),
)


def with_relay(**differing: Any) -> Inventory:
    return replace(HOST, relay=replace(RELAY, **differing))


def with_ports(*ports: RelayPort) -> Inventory:
    """With these in place of those of the same MAC, or beside them."""
    new = {port.mac: port for port in ports}
    return with_relay(ports=tuple(({port.mac: port for port in RELAY.ports} | new).values()))


def joined(found: ChainAssessment) -> list[RelayPort]:
    assert not found.errors, found.errors
    asked = [operation for each in found.steps for operation in each.step.apply]
    return [operation.port for operation in asked if isinstance(operation, JoinRelay)]


def done(host: Inventory, found: ChainAssessment, steps: int | None = None) -> Inventory:
    """The host once so many of the steps are done."""
    assert host.relay is not None
    ports = {port.mac: port for port in host.relay.ports} | {port.mac: port for port in joined(found)[:steps]}
    return replace(host, relay=replace(host.relay, ports=tuple(ports.values())))


def on_other(port: RelayPort) -> RelayPort:
    return replace(port, switch=SwitchPlace(bridge="relay1", vlan=7))


def in_chain(port: RelayPort, name: str, vlan: int) -> RelayPort:
    place = port.switch
    assert place is not None
    chain = ChainPlace(name=name, serves=False, within=True, vlan=place.vlan)
    return replace(port, switch=replace(place, vlan=vlan, chain=chain))


TWICE = replace(WISHES, services=(Service(inward=mac(0x21), outward=mac(0x21)), WISHES.services[1]))
CROSSED = (Service(inward=mac(0x21), outward=mac(0x32)), Service(inward=mac(0x31), outward=mac(0x22)))
GATEWAY = RelayGateway(bridge="relay0", vlan=902, remote="192.0.2.9", key=1)

REFUSED: dict[str, tuple[Inventory, ChainWishes]] = {
    "chain-no-switch": (with_relay(kind=RelayKind.DIRECT), WISHES),
    "chain-nic-twice": (with_relay(), TWICE),
    "chain-vlans-number": (with_relay(), replace(WISHES, vlans=(901,))),
    "chain-nic-unknown": (with_relay(), replace(WISHES, served=(mac(1), mac(5)))),
    "chain-nic-ovns": (with_ports(make_port(1, "guest1", 0, bridge="br-int", logical_port="web-0")), WISHES),
    "chain-apart-networks": (with_ports(on_other(GUESTS[0])), WISHES),
    "chain-two-guests": (with_relay(), replace(WISHES, services=CROSSED)),
    "chain-guest-twice": (with_ports(replace(GUESTS[1], guest="second")), WISHES),
    "chain-no-tenant": (with_ports(make_port(2, "guest2", 8)), WISHES),
    "chain-differs": (with_ports(in_chain(GUESTS[1], "web", 905)), WISHES),
    "chain-vlan-taken": (with_ports(make_port(9, "other", 902)), WISHES),
}
MORE_REFUSED: list[tuple[str, Inventory, ChainWishes]] = [
    ("chain-no-switch", HOST, WISHES),
    ("chain-no-switch", with_relay(state=RelayState.DISABLING), WISHES),
    ("chain-vlans-number", with_relay(), replace(WISHES, vlans=(901, 901))),
    ("chain-vlans-number", with_relay(), replace(WISHES, vlans=(901, 902, 903))),
    ("chain-no-tenant", with_ports(make_port(1, "guest1", 0), make_port(2, "guest2", 0)), WISHES),
    (
        "chain-guest-twice",
        with_ports(make_port(0x33, "second", 7)),
        replace(WISHES, served=(mac(1), mac(0x33))),
    ),
    ("chain-nic-unknown", with_ports(replace(GUESTS[0], switch=None)), WISHES),
    ("chain-differs", with_ports(in_chain(GUESTS[1], "other", 901)), WISHES),
    ("chain-differs", with_ports(in_chain(OTHER, "web", 901)), WISHES),
    ("chain-vlan-taken", with_relay(gateways=(GATEWAY,)), WISHES),
    ("chain-vlan-taken", with_relay(), replace(WISHES, vlans=(901, 7))),
    ("chain-vlan-taken", with_ports(in_chain(OTHER, "other", 902)), WISHES),
    ("chain-vlan-taken", with_ports(in_chain(make_port(9, "other", 902), "other", 905)), WISHES),
]
ELSEWHERE = {"chain-none", "chain-elsewhere", "chain-vlans", "chain-loop", "chain-open"}


def test_every_code_is_tested() -> None:
    assert codes_of({"relay_chain"}) == REFUSED.keys() | ELSEWHERE


@pytest.mark.parametrize(
    ("code", "host", "wishes"), [*((code, *each) for code, each in REFUSED.items()), *MORE_REFUSED]
)
def test_what_stands_in_the_way_is_said_with_what_to_do(code: str, host: Inventory, wishes: ChainWishes) -> None:
    found = assess_chain(host, wishes)
    assert found.steps == ()
    assert [finding.code for finding in found.errors] == [code]
    assert found.errors[0].remedy


def test_each_service_joins_two_vlans_and_the_last_the_tenant_s() -> None:
    found = assess_chain(with_relay(), WISHES)
    places = [(port.mac, port.switch) for port in joined(found)]
    assert [(mac, place.vlan, place.chain) for mac, place in places if place] == [
        (mac(1), 901, ChainPlace(name="web", serves=False, within=True, vlan=7)),
        (mac(2), 901, ChainPlace(name="web", serves=False, within=True, vlan=7)),
        (mac(0x21), 901, ChainPlace(name="web", serves=True, within=True, vlan=1001)),
        (mac(0x22), 902, ChainPlace(name="web", serves=True, within=True, vlan=1002, behind=(mac(1), mac(2)))),
        (mac(0x31), 902, ChainPlace(name="web", serves=True, within=True, vlan=1003)),
        (mac(0x32), 7, ChainPlace(name="web", serves=True, within=False, vlan=1004, behind=(mac(1), mac(2)))),
    ]
    assert [place.max_tx_rate for _, place in places if place] == [0, 100, 0, 0, 0, 0]
    assert [finding.code for finding in found.findings] == ["chain-vlans"]


@pytest.mark.parametrize("number", range(7))
def test_it_is_gone_on_with_and_taken_back_from_wherever_it_is(number: int) -> None:
    """What is half made is the same chain still."""
    whole = assess_chain(with_relay(), WISHES)
    half = done(with_relay(), whole, number)
    again = assess_chain(half, WISHES)
    assert joined(again) == joined(whole)
    back = assess_no_chain(half, "web")
    assert {port.mac for port in joined(back)} == {port.mac for port in joined(whole)[:number]}
    assert {port.mac: port for port in done(half, back).relay.ports} == {port.mac: port for port in RELAY.ports}  # type: ignore[union-attr]
    undone = [
        operation.port for each in whole.steps for operation in each.step.undo if isinstance(operation, JoinRelay)
    ]
    assert {port.mac: port for port in undone} == {port.mac: port for port in RELAY.ports if port != OTHER}


def test_guests_are_the_first_into_it_and_the_last_out_of_it() -> None:
    found = assess_chain(with_relay(), WISHES)
    assert [each.guest for each in found.steps] == ["guest1", "guest2", "first", "first", "second", "second"]
    back = assess_no_chain(done(with_relay(), found), "web")
    assert [each.guest for each in back.steps][-2:] == ["guest1", "guest2"]
    assert back.findings == ()


@pytest.mark.parametrize(("left", "said"), [("guest", "services"), ("first", "guests")])
def test_what_has_migrated_is_asked_for_on_its_host(left: str, said: str) -> None:
    """The chain's others stay where they are, held."""
    whole = done(with_relay(), assess_chain(with_relay(), WISHES))
    assert whole.relay is not None
    ports = tuple(port for port in whole.relay.ports if port.guest.startswith(left))
    found = assess_no_chain(with_relay(ports=ports), "web")
    assert [finding.code for finding in found.findings] == ["chain-elsewhere"]
    assert f"The {said} of web" in found.findings[0].message
    assert len(found.steps) == len(ports)


def test_where_there_is_none_that_is_said() -> None:
    found = assess_no_chain(with_relay(), "web")
    assert ([each.code for each in found.findings], found.steps) == (["chain-none"], ())
    assert [each.code for each in assess_no_chain(HOST, "web").errors] == ["chain-no-switch"]


@pytest.mark.parametrize(
    ("ports", "codes"),
    [
        ((make_port(0x21, "first", 1002),), ["chain-loop"]),
        ((make_port(0x31, "second", 0),), ["chain-loop"]),
        ((make_port(9, "other", 0),), ["chain-open"]),
        ((make_port(9, "other", 0, bridge="relay1"),), []),
        ((make_port(9, "other", 8),), []),
    ],
)
def test_what_is_odd_is_said(ports: tuple[RelayPort, ...], codes: list[str]) -> None:
    found = assess_chain(with_ports(*ports), WISHES)
    assert [finding.code for finding in found.findings] == ["chain-vlans", *codes]
    assert found.steps


@given(st.integers(1, 5), st.lists(st.integers(1, 4094), unique=True, min_size=13, max_size=13), st.integers(1, 4))
def test_there_is_one_way_through_and_no_other(guests: int, vlans: list[int], services: int) -> None:
    """Who is in a VLAN of the chain's: its guests and the first service, or two services that follow each other."""
    tenant, own, between = vlans[0], vlans[1:9], tuple(vlans[9 : 9 + services])
    served = [make_port(at, f"guest{at}", tenant) for at in range(guests)]
    pairs = [
        [make_port(0x40 + 2 * at + side, f"fw{at}", own[2 * at + side]) for side in range(2)] for at in range(services)
    ]
    host = with_relay(ports=(*served, *(port for pair in pairs for port in pair)))
    through = tuple(Service(inward=inward.mac, outward=outward.mac) for inward, outward in pairs)
    wishes = ChainWishes(name="x", served=tuple(port.mac for port in served), services=through, vlans=between)
    places = {port.mac: port.switch for port in joined(assess_chain(host, wishes))}
    members = {vlan: {mac for mac, place in places.items() if place and place.vlan == vlan} for vlan in vlans}
    before = set(wishes.served)
    for vlan, each in zip(between, through, strict=True):
        assert members[vlan] == {*before, each.inward}
        before = {each.outward}
    assert members[tenant] == before
    within = {place.vlan for place in places.values() if place and place.chain and place.chain.within}
    assert within == set(between)


# --- guests that migrate, and others -----------------------------------------------------------------------

CHAIN = ChainPlace(name="web", serves=False, within=True, vlan=42)
LED = replace(f.PLACE, vlan=901, chain=CHAIN)


def led(facts: Facts, *beside: RelayPort, there: tuple[RelayPort, ...] = ()) -> Facts:
    """The guest's NIC is in a chain, with others of it on its host, and on the other one."""
    port = replace(f.SWITCH_PORT, switch=LED)
    facts = f.on_switch(facts)
    assert facts.source.relay is not None
    assert facts.destination.relay is not None
    return f.both(
        f.host("source", relay=replace(facts.source.relay, ports=(port, *beside))),
        f.host("destination", relay=replace(facts.destination.relay, ports=there)),
    )(facts)


def test_a_guest_takes_its_place_along() -> None:
    (move,) = f.planned(lambda facts: led(facts)).ports
    assert move.destination.switch == LED
    assert move.vlan == 901


def test_a_service_announces_whom_it_is_before_by_its_own_port() -> None:
    chain = ChainPlace(name="web", serves=True, within=False, vlan=1002, behind=(mac(1), mac(2)))
    service = replace(f.SWITCH_PORT, switch=replace(f.PLACE, chain=chain))

    def change(facts: Facts) -> Facts:
        facts = f.on_switch(facts)
        assert facts.source.relay is not None
        return f.host("source", relay=replace(facts.source.relay, ports=(service,)))(facts)

    plan = f.planned(change)
    assert [each for each in plan.announced if each.interface is None] == [
        Announced(mac=mac(number), interface=None, port=service.mac) for number in (1, 2)
    ]
    steps = [step for step in stages(plan).all if step.name in ("expect-guest", "announce")]
    asked = [
        [each for operation in step.apply for each in getattr(operation, "announced", (operation,))] for step in steps
    ]
    for operations in asked:
        told = [each for each in operations if isinstance(each, Announce) and each.interface is None]
        assert told == [Announce(guest=plan.guest, mac=mac(number), port=service.mac) for number in (1, 2)]
    taught = [each.mac for each in asked[1] if isinstance(each, TeachBridge)]
    assert set(taught).isdisjoint({mac(1), mac(2)}), "where they are nobody is to hold"


@pytest.mark.parametrize("gateway", [901, 42])
def test_a_gateway_in_a_chain_s_vlan_there_is_refused(gateway: int) -> None:
    there = RelayGateway(bridge="relay0", vlan=gateway, remote="192.0.2.9", key=1)

    def change(facts: Facts) -> Facts:
        facts = led(facts)
        assert facts.destination.relay is not None
        return f.host("destination", relay=replace(facts.destination.relay, gateways=(there,)))(facts)

    assert [each.code for each in f.found(change).errors] == (["chain-vlan-used"] if gateway == 901 else [])


@pytest.mark.parametrize(("name", "codes"), [("web", ["chain-apart"]), ("other", [])])
def test_whom_it_leaves_is_said(name: str, codes: list[str]) -> None:
    beside = in_chain(make_port(5, "fw", 1001), name, 901)
    found = f.found(lambda facts: led(facts, beside))
    assert [finding.code for finding in found.findings] == codes
    assert found.plan is not None


@pytest.mark.parametrize(
    ("port", "mixed"),
    [
        (make_port(5, "stranger", 901), True),
        (in_chain(make_port(5, "stranger", 7), "other", 901), True),
        (in_chain(make_port(5, "fw", 1001), "web", 901), False),
        (make_port(5, "stranger", 902), False),
        (make_port(5, "stranger", 0), False),
        (make_port(5, "stranger", 901, bridge="relay9"), False),
    ],
)
def test_nobody_else_is_in_a_chain_s_vlan(port: RelayPort, *, mixed: bool) -> None:
    found = f.found(lambda facts: led(facts, there=(port,)))
    assert [each.code for each in found.errors] == (["chain-vlan-used"] if mixed else [])
    assert port.switch is not None
    host = with_relay(ports=(replace(f.SWITCH_PORT, switch=LED),))
    if mixed:
        with pytest.raises(Refusal, match="service chain"):
            switch_place.refuse_mixed(host, port.switch, port.mac)
    else:
        switch_place.refuse_mixed(host, port.switch, port.mac)
