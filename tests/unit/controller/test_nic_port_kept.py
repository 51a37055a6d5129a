"""`vferry guest nic --ovn-port` that ended half way: whoever asks again, by what was said, comes to the same port."""

from pathlib import Path

import pytest

from fakes import faults
from fakes.nic_controller import Controller
from fakes.nic_moves import CASES, NicCase, make_fleet, shut_down
from fakes.samples import GUEST, MAC, SOURCE
from vferry.controller.nic_moves import Way
from vferry.host.api import Define, MoveFilter
from vferry.model.problem import Exit, Problem
from vferry.plan.nic_plan import NicTarget

RELAY = NicTarget.RELAY
PORT = "web-0"


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    """The guest is off, and its NIC on a bridge of a host with a switched relay."""
    fleet = make_fleet(NicCase(NicTarget.VIRTIO, RELAY, switched=True))
    shut_down(fleet)
    return Controller(tmp_path, fleet, monkeypatch)


def bound(controller: Controller) -> list[str | None]:
    """What its ports on the relay are of OVN's."""
    places = (port.switch for port in controller.fleet.hosts[SOURCE].ports.values())
    return [place.logical_port for place in places if place]


def half_done(controller: Controller) -> Problem:
    """Its host answers no more before the definition is changed, nor for the undo."""
    controller.fleet.faults.append(faults.outage(faults.at_operation(Define)))
    with pytest.raises(Problem) as caught:
        controller.move(RELAY, PORT)
    controller.fleet.hosts[SOURCE].down_until = 0.0
    assert (caught.value.exit, controller.kept()) == (Exit.OPERATOR, [Way.THERE])
    return caught.value


def planned(controller: Controller) -> None:
    """It was killed as it had claimed its guest, and done nothing."""
    controller.fleet.faults.append(faults.crash(lambda _call: controller.claims() > 0))
    with pytest.raises(faults.Crash):
        controller.move(RELAY, PORT)
    assert controller.kept() == [Way.PLANNED]


def test_what_is_said_to_ask_again_by_names_the_port(controller: Controller) -> None:
    assert half_done(controller).remedy.endswith(f"vferry guest nic {GUEST} {MAC} --to relay --ovn-port {PORT}")


@pytest.mark.parametrize("left", [half_done, planned])
@pytest.mark.parametrize("named", [PORT, None])
def test_asked_for_again_it_is_the_port_that_it_was_begun_as(  # type: ignore[no-untyped-def]
    controller: Controller, left, named: str | None
) -> None:
    left(controller)
    controller.move(RELAY, named)
    assert (bound(controller), controller.stands()) == ([PORT], [("completed", 0)])


def test_recovered_it_is_the_port_that_it_was_begun_as(controller: Controller) -> None:
    half_done(controller)
    controller.recover()
    assert (bound(controller), controller.stands()) == ([PORT], [("completed", 0)])


def test_what_is_half_done_is_gone_on_with_where_ovn_says_nothing(controller: Controller) -> None:
    half_done(controller)
    controller.ovn = "it does not answer"
    controller.recover()
    assert (bound(controller), controller.stands()) == ([PORT], [("completed", 0)])


def test_where_ovn_says_nothing_none_is_begun(controller: Controller) -> None:
    controller.ovn = "it does not answer"
    assert [each.code for each in controller.assess(RELAY, PORT).errors] == ["northbound-unknown"]
    controller.move(RELAY)
    assert bound(controller) == [None]


def test_it_becomes_no_other_port_on_its_way(controller: Controller) -> None:
    half_done(controller)
    (refused,) = controller.assess(RELAY, "web-1").errors
    assert (refused.code, f"the relay, as {PORT} of OVN's" in refused.message) == ("nic-begun", True)
    assert refused.remedy.endswith(f"--to relay --ovn-port {PORT}")


def test_nor_does_one_that_was_begun_as_none(controller: Controller) -> None:
    controller.fleet.faults.append(faults.outage(faults.at_operation(Define)))
    with pytest.raises(Problem):
        controller.move(RELAY)
    controller.fleet.hosts[SOURCE].down_until = 0.0
    (refused,) = controller.assess(RELAY, PORT).errors
    assert (refused.code, refused.remedy.endswith("--to relay")) == ("nic-begun", True)


def test_nor_does_the_nic_of_a_guest_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its move would go on, and the port be forgotten."""
    controller = Controller(tmp_path, make_fleet(CASES[1]), monkeypatch)
    controller.fleet.faults.append(faults.crash(faults.at_operation(MoveFilter)))
    with pytest.raises(faults.Crash):
        controller.move(RELAY)
    (refused,) = controller.assess(RELAY, PORT).errors
    assert (refused.code, refused.remedy.endswith("--to relay")) == ("nic-begun", True)


def test_it_may_go_back_to_where_it_was_and_be_another_one_then(controller: Controller) -> None:
    half_done(controller)
    controller.move(NicTarget.VIRTIO)
    assert bound(controller) == []
    controller.move(RELAY, "web-1")
    assert bound(controller) == ["web-1"]
