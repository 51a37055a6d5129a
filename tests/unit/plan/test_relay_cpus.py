"""Guests that are pinned to where a relay is to forward, or does: what they are pinned to beside that counts."""

import pytest
from msgspec.structs import replace

from fakes.relay import HOST, make_guest, on_ground, pinned_to, with_switch
from vferry.model.guest import Guest
from vferry.model.host import Inventory
from vferry.model.relay import Relay, RelayKind, RelayState
from vferry.plan.facts import Severity
from vferry.plan.relay import RelayAssessment, RelayWishes, assess_enabling
from vferry.plan.relay_cpus import about, held_on, strays_to

RELAY = Relay(
    operation="relay-1", state=RelayState.ENABLED, kind=RelayKind.DIRECT, uplinks=("pf0",), cores=(6, 7), ports=()
)
HERE = tuple(range(8))
"""The CPUs near pf0."""


def enabling(host: Inventory, *uplinks: str) -> RelayAssessment:
    return assess_enabling(host, RelayWishes(operation="relay-2", uplinks=uplinks or ("pf0",)))


@pytest.mark.parametrize(
    ("pins", "held", "strays"),
    [
        ((), (), ()),
        (((0, 1),), (), ()),
        (((7,),), (7,), ()),
        (((6, 7),), (6, 7), ()),
        (((5, 6, 7),), (), (6, 7)),
        (((0, 6), (7,)), (7,), (6,)),
    ],
)
def test_what_of_a_guest_is_where_the_relay_is(
    pins: tuple[tuple[int, ...], ...], held: tuple[int, ...], strays: tuple[int, ...]
) -> None:
    guest = pinned_to("web", *pins)
    assert (held_on(guest, (6, 7)), strays_to(guest, (6, 7))) == (held, strays)


@pytest.mark.parametrize(
    ("uplinks", "guests", "isolated", "cores"),
    [
        (("pf0",), (pinned_to("a", HERE),), (), (7,)),
        (("pf0",), (pinned_to("a", (4, 5, 6, 7)),), (), (3,)),
        (("pf0",), (pinned_to("a", (4, 5, 6, 7)),), (7,), (3,)),
        (("pf0",), (pinned_to("a", HERE, (7,)),), (), (6,)),
        (("pf0", "pf1"), (pinned_to("a", HERE, (6, 7)),), (), (5, 7)),
        (("pf0", "pf2"), (pinned_to("a", (*range(15),), (7, 15)),), (), (7, 14)),
    ],
)
def test_a_cpu_that_a_guest_may_run_on_beside_others_is_taken_where_there_is_no_other(
    uplinks: tuple[str, ...], guests: tuple[Guest, ...], isolated: tuple[int, ...], cores: tuple[int, ...]
) -> None:
    """Never all of what a thread of it has."""
    found = enabling(on_ground(replace(HOST, guests=guests), isolated=isolated), *uplinks)
    assert found.plan is not None
    assert found.plan.relay.cores == cores
    told = [each.severity for each in found.findings if each.code == "relay-cores-shared"]
    assert told == [Severity.WARNING] * any(strays_to(guest, cores) for guest in guests)


def test_of_cpus_that_the_operator_has_given_a_guest_needs_one_beside() -> None:
    host = with_switch(settings={"pmd-cpu-mask": "0xc0"})
    found = enabling(replace(host, guests=(pinned_to("a", (5, 6, 7)),)))
    assert found.plan is not None
    assert "relay-cores-shared" in [each.code for each in found.findings]
    (refused,) = enabling(replace(host, guests=(pinned_to("a", (5, 6, 7), (6, 7)),))).errors
    assert refused.code == "relay-core-used"


@pytest.mark.parametrize(
    ("guests", "codes"),
    [
        ((), []),
        ((make_guest("a"), make_guest("b", 1)), []),
        ((make_guest("a", 1, 7),), ["relay-core-used"]),
        ((pinned_to("a", HERE),), ["relay-cores-shared"]),
        ((make_guest("a", 7), pinned_to("b", (5, 6)), make_guest("c", 2)), ["relay-core-used", "relay-cores-shared"]),
    ],
)
def test_who_was_pinned_to_a_made_relay_s_cpus_is_named(guests: tuple[Guest, ...], codes: list[str]) -> None:
    """It stands in the way of nothing: the relay is made whole all the same."""
    host = replace(HOST, relay=RELAY, guests=guests)
    told = tuple(about(host))
    assert [each.code for each in told] == codes
    assert all(each.severity is Severity.WARNING and each.remedy for each in told)
    assert "c" not in " ".join(each.message.split(" are ")[0].removeprefix("The guests ") for each in told)
    again = enabling(host)
    assert [each.code for each in again.findings] == ["relay-there", *codes]
    assert again.plan is not None


def test_where_the_relay_forwards_open_vswitch_says() -> None:
    host = replace(HOST, relay=RELAY, guests=(make_guest("a", 7),))
    assert not list(about(with_switch(host, settings={"pmd-cpu-mask": "0x8"})))
    assert not list(about(replace(host, relay=None)))
