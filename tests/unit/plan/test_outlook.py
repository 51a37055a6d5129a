"""What is said of every mode: whether it would do, and what else would be needed."""

import pytest
from msgspec import structs

from fakes import facts as f
from fakes.samples import MAC
from vferry.model.guest import GuestState, Nic
from vferry.plan.facts import Facts, Wishes
from vferry.plan.outlook import Outlook, outlooks
from vferry.plan.plan import NetworkMode

VIRTIO = Nic(mac=MAC, model="virtio", alias="net0", bridge="br0")


def seen(facts: Facts) -> dict[str, Outlook]:
    found = outlooks(facts, Wishes(operation="op-1"))
    assert [outlook.mode for outlook in found] == list(NetworkMode)
    return {outlook.mode.value: outlook for outlook in found}


def possible(facts: Facts) -> set[str]:
    return {mode for mode, outlook in seen(facts).items() if outlook.possible}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda facts: facts, {"switch", "detach"}),
        (f.guest(nics=(VIRTIO,)), {"virtio"}),
        (f.silent, {"detach"}),
        (f.guest(state=GuestState.OFF), set()),
    ],
)
def test_each_guest_has_its_modes(change: f.Change, expected: set[str]) -> None:
    assert possible(change(f.sample())) == expected


def test_what_is_wrong_anyway_is_not_said_again_for_each_mode() -> None:
    found = seen(f.guest(state=GuestState.OFF)(f.sample()))
    assert not any(finding.code == "guest-not-running" for outlook in found.values() for finding in outlook.findings)
    assert [finding.code for finding in found["failover"].findings if finding.remedy]


def test_every_refusal_says_what_would_change_it() -> None:
    found = seen(f.sample())
    for mode in ("failover", "virtio"):
        assert found[mode].findings
        assert all(finding.remedy for finding in found[mode].findings)


def test_a_wish_for_one_mode_changes_nothing() -> None:
    wishes = Wishes(operation="op-1")
    asked = structs.replace(wishes, mode=NetworkMode.DETACH)
    assert outlooks(f.sample(), asked) == outlooks(f.sample(), wishes)
