"""A NIC that is on a switched relay already, and is asked to be a port of OVN's there: that one, or refused."""

import pytest
from msgspec import structs

from fakes import facts as f
from fakes.samples import MAC
from vferry.model.relay import RelayKind, SwitchPlace
from vferry.plan.facts import Facts
from vferry.plan.guest_nic import assess
from vferry.plan.nic_plan import NicAssessment, NicTarget


def found(change: f.Change, logical_port: str | None) -> NicAssessment:
    facts = change(f.sample())
    return assess(
        facts.source, facts.guest, facts.definition.persistent, MAC, NicTarget.RELAY, "nic-1", logical_port=logical_port
    )


@pytest.mark.parametrize(("on", "asked"), [(f.on_ovn, "web-0"), (f.on_ovn, None), (f.on_switch, None)])
def test_one_that_is_so_or_of_which_nothing_is_said_stays(on: f.Change, asked: str | None) -> None:
    assessed = found(on, asked)
    assert [each.code for each in assessed.findings] == ["nic-there"]
    assert assessed.plan is not None
    assert (assessed.plan.steps, assessed.plan.logical_port) == ((), asked)


def unknown(facts: Facts) -> Facts:
    """Its host has no such port."""
    return f.both(f.on_ovn, f.host("source", relay=f.SWITCHED))(facts)


@pytest.mark.parametrize(("on", "has"), [(f.on_ovn, "web-0 of"), (f.on_switch, "no port of"), (unknown, "no port of")])
def test_another_one_is_refused_with_how_to_come_to_it(on: f.Change, has: str) -> None:
    """Or the guest would be started past the rules of the port that it was to be."""
    assessed = found(on, "web-1")
    (refused,) = assessed.errors
    assert (refused.code, assessed.plan) == ("port-differs", None)
    assert f"as {has} OVN's" in refused.message
    assert f"vferry guest nic {f.sample().guest.name} {MAC} --to virtio" in refused.remedy


def test_a_direct_relay_has_none_of_ovn_s() -> None:
    assert [each.code for each in found(f.on_relay, "web-0").errors] == ["relay-not-switched"]
    assert [each.code for each in found(f.on_relay, None).findings] == ["nic-there"]


def test_one_that_was_left_half_made_on_the_way_there_is_gone_on_with() -> None:
    """It is defined on something else still."""

    def left(facts: Facts) -> Facts:
        changed = f.on_ovn(facts)
        relay = changed.source.relay
        assert relay is not None
        assert relay.kind is RelayKind.SWITCHED
        place = SwitchPlace(bridge="br-int", logical_port="web-0", network="lan")
        port = structs.replace(f.BOUND_PORT, guest=facts.guest.name, switch=place)
        bridged = structs.replace(changed.guest.nics[0], socket=None, relay_bridge=None, bridge="br0")
        return f.both(
            f.host("source", relay=structs.replace(relay, ports=(port,))),
            f.guest(nics=(bridged, *changed.guest.nics[1:])),
        )(changed)

    plan = found(left, "web-0").plan
    assert plan is not None
    assert [step.name for step in plan.steps][:2] == ["join-relay", "define"]
