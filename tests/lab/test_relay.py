"""A host's relay on the emulated NIC's VFs, with DPDK: made, with a guest on it, killed, and taken back."""

from collections.abc import Iterator

import pytest

from lab.operator import PF, Scene, asked, vferry
from lab.relayed import GUEST, HOST, RESTART_S, Relayed
from vferry.lab import guests
from vferry.lab.lab import Lab
from vferry.model.relay import RelayKind

pytestmark = pytest.mark.relay
DIRECT = pytest.mark.parametrize("kind", [RelayKind.DIRECT], ids=str)
EACH = pytest.mark.parametrize("kind", list(RelayKind), ids=str)


@pytest.fixture
def scene(lab: Lab) -> Scene:
    """The guest that may be on the relay: no other runs, and neither does it."""
    assert lab.setup().relay, "vferry lab down; vferry lab up --relay"
    guests.stop_others(lab, [])
    return Scene(lab, GUEST)


@pytest.fixture
def relay(scene: Scene, kind: RelayKind) -> Iterator[Relayed]:
    """A relay that is to be made."""
    assert asked("relay", "show", HOST)["relay"] is None, "an earlier test has left a relay"
    found = Relayed(scene, kind)
    yield found
    found.end()


@EACH
def test_a_dry_run_says_the_steps_and_changes_nothing(relay: Relayed) -> None:
    done = vferry("relay", "enable", *relay.words, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "Open vSwitch forwards with DPDK on CPU 1" in done.stdout
    assert (f"of {PF} (" in done.stdout) == (relay.kind is RelayKind.SWITCHED), done.stdout
    assert relay.ground() == relay.before


@EACH
def test_a_relay_is_made_shown_and_taken_back(relay: Relayed) -> None:
    relay.enable()
    relay.assert_made()
    made = relay.ground()
    relay.enable()  # nothing is missing of it
    assert {**relay.ground(), "claims": None} == {**made, "claims": None}
    relay.disable()
    relay.assert_given_back()


@EACH
def test_a_relay_is_there_again_after_the_host_was_restarted(relay: Relayed) -> None:
    relay.enable()
    relay.assert_made()
    relay.restart_host()
    relay.assert_made()
    relay.disable()
    relay.assert_given_back()


@DIRECT
def test_a_relay_that_a_guest_is_on_is_not_taken_back(relay: Relayed) -> None:
    relay.enable()
    relay.join()
    joined = relay.ground()
    done = vferry("relay", "disable", HOST)
    assert done.returncode == 3, done.stderr
    assert relay.guest.mac in done.stderr
    assert relay.ground() == joined
    relay.leave()
    relay.disable()
    relay.assert_given_back()


@EACH
def test_a_guest_answers_through_the_relay_also_after_it_was_killed(relay: Relayed) -> None:
    relay.enable()
    relay.join()
    relay.start_guest()
    relay.assert_answers("on the relay")
    relay.assert_passes_by_the_vf()
    relay.kill_switch()
    relay.assert_answers("after Open vSwitch was killed", RESTART_S)
    relay.assert_passes_by_the_vf()
    relay.stop_guest()
    relay.leave()
    relay.disable()
    relay.assert_given_back()


@EACH
def test_a_guest_finds_its_neighbours_through_the_relay(relay: Relayed) -> None:
    relay.enable()
    relay.join()
    relay.start_guest()
    relay.assert_asks()
    relay.assert_answers("after it has asked")
