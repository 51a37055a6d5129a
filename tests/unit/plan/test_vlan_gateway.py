"""Where a VLAN of a switched relay may be led, as a pure function of what its host has."""

from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.json import decode, encode
from msgspec.structs import replace

from fakes.codes import codes_of
from fakes.relay import HOST
from vferry.host.api import KeepRelay, SetRelayGateway
from vferry.model.host import Inventory
from vferry.model.relay import (
    ChainPlace,
    PortCounters,
    Relay,
    RelayBridge,
    RelayGateway,
    RelayKind,
    RelayPort,
    RelayState,
    RelayUplink,
    RelayView,
    SwitchPlace,
)
from vferry.plan.relay import RelayAssessment, assess_disabling
from vferry.plan.relay_gateway import GatewayWishes, assess_gateway, assess_no_gateway
from vferry.plan.relay_steps import disabling, enabling

SEVEN = RelayGateway(bridge="relay0", vlan=7, remote="192.0.2.9", key=7)
GUEST = RelayPort(guest="guest1", mac="52:54:00:aa:00:0b", socket="/run/a", switch=SwitchPlace(bridge="relay0", vlan=7))


def make_bridge(name: str) -> RelayBridge:
    return RelayBridge(name=name, uplinks=(RelayUplink(name=f"{name}-up0", address="0000:01:10.0"),))


RELAY = Relay(
    operation="relay-1",
    state=RelayState.ENABLED,
    kind=RelayKind.SWITCHED,
    uplinks=("pf0",),
    cores=(7,),
    bridges=(make_bridge("relay0"),),
)


def with_relay(**differing: Any) -> Inventory:
    return replace(HOST, relay=replace(RELAY, **differing))


def wishes(**differing: Any) -> GatewayWishes:
    return replace(GatewayWishes(vlan=7, remote=IPv4Address("192.0.2.9")), **differing)


TWO = with_relay(bridges=(make_bridge("relay0"), make_bridge("relay1")))

REFUSED: dict[str, tuple[Inventory, GatewayWishes]] = {
    "gateway-no-switch": (with_relay(kind=RelayKind.DIRECT, bridges=()), wishes()),
    "gateway-bridge-unknown": (with_relay(), wishes(bridge="relay9")),
    "gateway-ambiguous": (TWO, wishes()),
    "gateway-key-taken": (with_relay(gateways=(SEVEN,)), wishes(vlan=8, key=7)),
}
ELSEWHERE = {"gateway-none", "gateway-mtu", "gateway-ipv4", "gateway-once", "gateway-open"}


@pytest.mark.parametrize("code", REFUSED)
def test_what_stands_in_the_way_is_said_with_what_to_do(code: str) -> None:
    found = assess_gateway(*REFUSED[code])
    assert found.plan is None
    assert [finding.code for finding in found.errors] == [code]
    assert found.errors[0].remedy


def test_every_code_is_tested() -> None:
    assert codes_of({"relay_gateway"}) == REFUSED.keys() | ELSEWHERE


@pytest.mark.parametrize("state", [RelayState.ENABLING, RelayState.DISABLING])
@pytest.mark.parametrize("there", [True, False])
def test_a_relay_that_is_half_made_has_none(state: RelayState, *, there: bool) -> None:
    host = with_relay(state=state) if there else HOST
    assert [each.code for each in assess_gateway(host, wishes()).errors] == ["gateway-no-switch"]
    assert [each.code for each in assess_no_gateway(host, 7, None).errors] == ["gateway-no-switch"]


def test_a_chain_s_vlan_goes_to_no_gateway_and_what_is_behind_it_may() -> None:
    chain = ChainPlace(name="web", serves=False, within=True, vlan=7)
    led = replace(GUEST, switch=SwitchPlace(bridge="relay0", vlan=901, chain=chain))
    host = with_relay(ports=(led,))
    assert [each.code for each in assess_gateway(host, wishes(vlan=901)).errors] == ["chain-vlan-used"]
    assert assess_gateway(host, wishes()).plan is not None


def test_without_a_key_it_is_the_vlan_s_number() -> None:
    assert applied(assess_gateway(with_relay(), wishes())) == [
        KeepRelay(relay=replace(RELAY, gateways=(SEVEN,))),
        SetRelayGateway(gateway=SEVEN, present=True),
    ]


@pytest.mark.parametrize(("key", "bridge"), [(0, "relay1"), (0xFFFFFFFF, "relay0")])
def test_it_is_as_asked_for(key: int, bridge: str) -> None:
    gateway = RelayGateway(bridge=bridge, vlan=7, remote="192.0.2.9", key=key)
    _, made = applied(assess_gateway(TWO, wishes(key=key, bridge=bridge)))
    assert made == SetRelayGateway(gateway=gateway, present=True)


def test_with_a_label_there_is_no_key() -> None:
    gateway = RelayGateway(bridge="relay0", vlan=7, remote="192.0.2.9", label=100007)
    found = assess_gateway(with_relay(gateways=(replace(SEVEN, vlan=8),)), wishes(label=100007))
    assert applied(found)[1] == SetRelayGateway(gateway=gateway, present=True)
    assert gateway.described == "VLAN 7 of relay0 to 192.0.2.9 by MPLS in GRE, label 100007"
    taken = assess_gateway(with_relay(gateways=(replace(gateway, vlan=8),)), wishes(label=100007))
    assert [each.code for each in taken.errors] == ["gateway-key-taken"]
    elsewhere = replace(gateway, vlan=8, remote="192.0.2.10")
    assert assess_gateway(with_relay(gateways=(elsewhere,)), wishes(label=100007)).plan is not None


@pytest.mark.parametrize(("key", "label"), [(None, None), (9, None), (None, 100007)])
def test_with_an_address_ip_goes_alone(key: int | None, label: int | None) -> None:
    asked = wishes(key=key, label=label, address=IPv4Address("10.0.0.254"))
    found = assess_gateway(with_relay(), asked)
    (gateway,) = (each.gateway for each in applied(found) if isinstance(each, SetRelayGateway))
    assert (gateway.address, gateway.by_flows) == ("10.0.0.254", True)
    assert (gateway.key, gateway.label) == (None if label else key or 7, label)
    assert [each.code for each in found.findings] == ["gateway-mtu", "gateway-ipv4", "gateway-once"]
    assert "1472" in found.findings[0].message
    assert gateway.described.endswith(", IPv4 by 10.0.0.254")


@pytest.mark.parametrize("label", [0, 15, 1 << 20, -1])
def test_reserved_labels_are_not_read(label: int) -> None:
    with pytest.raises(ValueError, match="label"):
        decode(encode(replace(SEVEN, label=label)), type=RelayGateway)


def test_another_one_takes_its_place_and_is_put_back() -> None:
    host = with_relay(gateways=(SEVEN,))
    new = replace(SEVEN, key=9)
    found = assess_gateway(host, wishes(key=9))
    assert applied(found)[0] == KeepRelay(relay=replace(RELAY, gateways=(new,)))
    assert found.plan is not None
    assert [operation for step in found.plan.steps for operation in step.undo] == [
        KeepRelay(relay=replace(RELAY, gateways=(SEVEN,))),
        SetRelayGateway(gateway=SEVEN, present=True),
    ]


def test_the_way_back_forgets_last() -> None:
    found = assess_no_gateway(with_relay(gateways=(SEVEN,)), 7, None)
    assert applied(found) == [SetRelayGateway(gateway=SEVEN, present=False), KeepRelay(relay=RELAY)]
    none = assess_no_gateway(with_relay(gateways=(SEVEN,)), 8, "relay0")
    assert (none.plan, [each.code for each in none.findings]) == (None, ["gateway-none"])


def applied(found: RelayAssessment) -> list[Any]:
    assert found.plan is not None, found.errors
    return [operation for step in found.plan.steps for operation in step.apply]


@pytest.mark.parametrize("vlan", [0, 7])
def test_who_may_speak_in_the_gateway_s_name_is_said(vlan: int) -> None:
    host = with_relay(ports=(replace(GUEST, switch=SwitchPlace(bridge="relay0", vlan=vlan)),))
    codes = [each.code for each in assess_gateway(host, wishes()).findings]
    assert codes == ["gateway-mtu", "gateway-once", *(["gateway-open"] if not vlan else [])]
    assert "1458" in assess_gateway(host, wishes()).findings[0].message


gateways = st.lists(
    st.builds(
        RelayGateway,
        bridge=st.sampled_from(["relay0", "relay1"]),
        vlan=st.integers(1, 4094),
        remote=st.ip_addresses(v=4).map(str),
        key=st.integers(0, 0xFFFFFFFF),
    ),
    unique_by=lambda each: (each.bridge, each.vlan),
    max_size=6,
)


@given(gateways)
def test_a_relay_with_gateways_is_what_is_written_and_goes_as_it_came(some: list[RelayGateway]) -> None:
    relay = replace(RELAY, bridges=TWO.relay.bridges if TWO.relay else (), gateways=tuple(some))
    assert decode(encode(relay), type=Relay) == relay
    assert len({each.port for each in some}) == len(some)
    assert all(len(each.port) <= 15 for each in some)
    there = [o.gateway for step in enabling(relay) for o in step.apply if isinstance(o, SetRelayGateway)]
    back = [(o.gateway, o.present) for step in disabling(relay) for o in step.apply if isinstance(o, SetRelayGateway)]
    assert there == some
    assert back == [(each, False) for each in reversed(some)]
    ports = tuple(PortCounters(name=each.port, bridge=each.bridge, type="gre") for each in some)
    host = replace(HOST, relay=relay)
    assert not assess_disabling(host, RelayView(relay=relay, ports=ports)).errors
    foreign = PortCounters(name="other", bridge="relay0", type="gre")
    assert assess_disabling(host, RelayView(relay=relay, ports=(*ports, foreign))).errors


@pytest.mark.parametrize(
    "remote",
    ["", "192.0.2", "192.0.2.9\n", "host", "::1", "192.0.2.9 options:key=1", "192.0.2.256", "1.2.3.", "1.2.3.4."],
)
def test_what_is_no_address_is_not_read(remote: str) -> None:
    with pytest.raises(ValueError, match="remote"):
        decode(encode(replace(SEVEN, remote=remote)), type=RelayGateway)
