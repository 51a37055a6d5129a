"""A guest's NIC that is asked to be a port of OVN's on a switched relay: that one, or refused."""

import pytest
from msgspec import structs

from fakes import facts as f
from fakes.codes import codes_of
from fakes.samples import MAC
from vferry.model.ovn import ANY_MAC, KnownPort, LogicalPort
from vferry.model.relay import RelayPort, SwitchPlace
from vferry.plan.facts import Facts, Severity
from vferry.plan.guest_nic import assess
from vferry.plan.nic_plan import NicAssessment, NicTarget
from vferry.plan.nic_port import AskedPort

FITTING = KnownPort(binding=LogicalPort(name="web-0"), macs=(MAC,), senders=(MAC,))


def found(
    change: f.Change, logical_port: str | None, known: KnownPort | None = FITTING, silence: str | None = None
) -> NicAssessment:
    facts = change(f.sample())
    asked = AskedPort(name=logical_port, known=known, silence=silence) if logical_port else None
    return assess(facts.source, facts.guest, facts.definition.persistent, MAC, NicTarget.RELAY, "nic-1", asked)


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


def bridged(*ports: RelayPort) -> f.Change:
    """It is on a bridge of a host with a switched relay, which is a chassis of OVN's, and has these ports."""

    def change(facts: Facts) -> Facts:
        changed = f.on_ovn(facts)
        nic = structs.replace(changed.guest.nics[0], socket=None, relay_bridge=None, bridge="br0")
        return f.both(
            f.host("source", relay=structs.replace(f.SWITCHED, ports=ports)),
            f.guest(nics=(nic, *changed.guest.nics[1:])),
        )(changed)

    return change


@pytest.mark.parametrize("known", [FITTING, None])
@pytest.mark.parametrize("silence", [None, "it does not answer"])
def test_one_that_was_left_half_made_on_the_way_there_is_gone_on_with(
    known: KnownPort | None, silence: str | None
) -> None:
    """It is defined on something else still. Whatever OVN says meanwhile, it is not left there."""
    place = SwitchPlace(bridge="br-int", logical_port="web-0", network="lan")
    port = structs.replace(f.BOUND_PORT, guest=f.sample().guest.name, switch=place)
    plan = found(bridged(port), "web-0", known, silence).plan
    assert plan is not None
    assert [step.name for step in plan.steps][:2] == ["join-relay", "define"]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"senders": ()},
        {"macs": ("52:54:00:00:00:99", MAC)},
        {"macs": (ANY_MAC,)},
        {"binding": LogicalPort(name="web-0", requested_chassis="c0,c1")},
        {"localnets": ("dmz", "lan")},
    ],
)
def test_a_port_that_is_the_nic_s_is_made(more: dict[str, object]) -> None:
    on = f.both(bridged(), f.chassis("source", networks=("lan",)))
    assessed = found(on, "web-0", structs.replace(FITTING, **more))
    assert assessed.findings == ()
    assert assessed.plan is not None
    (join, define) = assessed.plan.steps
    assert (join.name, define.name, assessed.plan.logical_port) == ("join-relay", "define", "web-0")


REFUSED: tuple[tuple[KnownPort | None, str | None, str, str], ...] = (
    (None, None, "logical-port-unknown", "web-0"),
    (None, "it does not answer", "northbound-unknown", "it does not answer"),
    (structs.replace(FITTING, type="router"), None, "ovn-port-kind", "router"),
    (structs.replace(FITTING, parent="pod-0"), None, "ovn-port-kind", "pod-0"),
    (structs.replace(FITTING, macs=("52:54:00:00:00:99",)), None, "ovn-port-addresses", "52:54:00:00:00:99"),
    (structs.replace(FITTING, macs=()), None, "ovn-port-addresses", "no MAC"),
    (structs.replace(FITTING, senders=("52:54:00:00:00:99",)), None, "ovn-port-security", "52:54:00:00:00:99"),
    (structs.replace(FITTING, localnets=("dmz",)), None, "ovn-no-mapping", "dmz"),
)


@pytest.mark.parametrize(("known", "silence", "code", "said"), REFUSED)
def test_a_port_that_could_not_be_the_nic_s_is_refused(
    known: KnownPort | None, silence: str | None, code: str, said: str
) -> None:
    """Or the guest would be started without a network, and nothing would say why."""
    assessed = found(bridged(), "web-0", known, silence)
    (refused,) = assessed.findings
    assert (refused.code, assessed.plan, bool(refused.remedy)) == (code, None, True)
    assert said in refused.message


def test_one_that_ovn_is_to_bind_elsewhere_is_warned_of() -> None:
    """It may go by the hostname of this host, which nobody asks for."""
    elsewhere = structs.replace(FITTING, binding=LogicalPort(name="web-0", requested_chassis="c2"))
    assessed = found(bridged(), "web-0", elsewhere)
    (told,) = assessed.findings
    assert (told.code, told.severity, assessed.plan is None) == ("ovn-requested-elsewhere", Severity.WARNING, False)


def test_every_code_is_tested() -> None:
    of_hosts = {"northbound-unknown", "ovn-no-mapping"}
    assert codes_of({"nic_port"}) == {row[2] for row in REFUSED} - of_hosts | {"ovn-requested-elsewhere"}
