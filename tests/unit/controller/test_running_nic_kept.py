"""`vferry guest nic` of a guest that runs: kept until its end, and gone on with where it is asked for again."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

import vferry.controller.journal
from fakes import faults
from fakes.clock import run_virtually
from fakes.contract import Snapshot
from fakes.fleet import Call
from fakes.nic_controller import Controller
from fakes.nic_moves import ALIAS, CASES, NicCase, make_fleet, shut_down, start, wrong_there
from fakes.samples import GUEST, MAC, SOURCE
from vferry.cli import guest as cli
from vferry.controller import guest_nic, nic_driving, operations
from vferry.controller.nic_moves import Way
from vferry.host.api import Define, MoveFilter, PlugRelayed, ReleaseClaim, Session, SetVf, Unplug
from vferry.model.guest import GuestState
from vferry.model.problem import Exit, Problem
from vferry.plan.nic_plan import NicTarget

CASE = CASES[1]
"""From a VF to the relay."""


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    return Controller(tmp_path, make_fleet(CASE), monkeypatch)


def wrong(controller: Controller, case: NicCase = CASE) -> list[str]:
    host = controller.fleet.hosts[SOURCE]
    (device,) = host.machines[GUEST].devices.values()
    left = [f"{device} is not on the relay"] if device.socket is None else []
    return [*left, *([f"{host.claims.all()} is left"] if host.claims.all() else [])]


def test_it_is_moved_each_step_is_said_and_nothing_is_kept(controller: Controller) -> None:
    found = controller.move()
    assert found.plan is not None
    assert wrong_there(controller.fleet, CASE, found.plan) == []
    assert (controller.kept(), controller.stands()) == ([], [("completed", 0)])
    assert len(controller.told) == len(guest_nic.steps(found.plan)) == 9
    assert any("addresses and routes to the standby NIC" in each for each in controller.told)
    assert [each.code for each in controller.move().findings] == ["nic-there"]


def test_what_is_only_looked_at_changes_nothing(controller: Controller) -> None:
    before = Snapshot.of(controller.fleet)
    plan = controller.assess().plan
    assert plan is not None
    assert len(guest_nic.steps(plan)) == 9
    assert (before.differences(controller.fleet), controller.stands()) == ([], [])


@pytest.mark.parametrize("operation", [PlugRelayed, MoveFilter, Define, Unplug, ReleaseClaim])
@pytest.mark.parametrize("after", [False, True], ids=["before-the-effect", "after-the-effect"])
def test_a_command_that_was_killed_goes_on_where_it_is_asked_for_again(
    controller: Controller, operation: type, *, after: bool
) -> None:
    controller.fleet.faults.append(faults.crash(faults.at_operation(operation), after=after))
    with pytest.raises(faults.Crash):
        controller.move()
    assert controller.kept() == [Way.THERE]
    released = operation is ReleaseClaim and after
    if not released:
        (refused,) = controller.assess(NicTarget.VIRTIO).errors
        assert (refused.code, "--to relay" in refused.remedy) == ("nic-begun", True)
    again = controller.move()
    assert [each.code for each in again.findings] == (["nic-there"] if released else ["nic-begun"])
    assert wrong(controller) == []


def test_one_that_was_killed_before_it_began_is_planned_anew(controller: Controller) -> None:
    controller.fleet.faults.append(faults.crash(lambda _call: controller.claims() > 0))
    with pytest.raises(faults.Crash):
        controller.move()
    assert (controller.kept(), controller.claims()) == ([Way.PLANNED], 1)
    assert [each.code for each in controller.move().findings] == []
    assert (wrong(controller), controller.kept()) == ([], [])


def test_what_fails_is_undone(controller: Controller) -> None:
    before = Snapshot.of(controller.fleet)
    controller.fleet.held.add(ALIAS)
    with pytest.raises(Problem, match="is undone") as caught:
        controller.move()
    assert (caught.value.code, caught.value.exit) == ("unplug-refused", Exit.UNDONE)
    assert caught.value.remedy
    assert (before.differences(controller.fleet), controller.kept()) == ([], [])
    assert any(each.startswith("undo: ") for each in controller.told)


def test_what_cannot_be_undone_is_undone_when_it_is_asked_for_again_and_then_it_is_said(
    controller: Controller,
) -> None:
    before = Snapshot.of(controller.fleet)
    controller.fleet.faults.append(faults.outage(faults.at_operation(MoveFilter)))
    with pytest.raises(Problem) as caught:
        controller.move()
    assert caught.value.exit is Exit.OPERATOR
    assert f"vferry guest nic {GUEST} {MAC} --to relay" in caught.value.remedy
    with pytest.raises(Problem, match="does not answer"):
        controller.move()
    assert controller.kept() == [Way.BACK]
    controller.fleet.hosts[SOURCE].down_until = 0.0
    with pytest.raises(Problem) as caught:
        controller.move()
    assert caught.value.exit is Exit.UNDONE
    assert (before.differences(controller.fleet), controller.kept()) == ([], [])
    controller.move()
    assert wrong(controller) == []


def test_what_is_not_put_in_order_is_when_it_is_asked_for_again(controller: Controller) -> None:
    unplugged = False

    def wipes(call: Call) -> bool:
        nonlocal unplugged
        unplugged = unplugged or isinstance(call.operation, Unplug)
        return unplugged and isinstance(call.operation, SetVf)

    controller.fleet.faults.append(faults.refusal(wipes))
    with pytest.raises(Problem, match="is on the relay: wipe-vf") as caught:
        controller.move()
    assert (caught.value.exit, controller.kept()) == (Exit.OPERATOR, [Way.REST])
    controller.move()
    assert (wrong(controller), controller.kept()) == ([], [])


def test_somebody_elses_guest_is_left_alone(controller: Controller) -> None:
    found = controller.assess()
    assert found.plan is not None
    controller.fleet.hosts[SOURCE].claims.claim(Session(operation="op-9"), GUEST)
    with pytest.raises(Problem) as caught:
        run_virtually(nic_driving.move(controller.state, found.plan, controller.told.append))
    assert (caught.value.code, controller.kept(), controller.told) == ("guest-claimed", [], [])
    assert [each.code for each in controller.assess().errors] == ["guest-claimed"]


def test_a_guest_that_has_changed_since_it_was_looked_at_is_left_alone(controller: Controller) -> None:
    found = controller.assess()
    assert found.plan is not None
    controller.fleet.hosts[SOURCE].machines[GUEST].run += 1
    with pytest.raises(Problem) as caught:
        run_virtually(nic_driving.move(controller.state, found.plan, controller.told.append))
    assert (caught.value.code, caught.value.exit) == ("guest-changed", Exit.REFUSED)
    assert (controller.kept(), controller.claims(), controller.told) == ([], 0, [])


def test_another_machines_move_is_not_taken_for_ones_own(
    controller: Controller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.fleet.faults.append(faults.crash(faults.at_operation(MoveFilter)))
    with pytest.raises(faults.Crash):
        controller.move()
    (tmp_path / "other").mkdir()
    other = Controller(tmp_path / "other", controller.fleet, monkeypatch)
    assert [(each.code, bool(each.remedy)) for each in other.assess().errors] == [("nic-begun-elsewhere", True)]


def test_a_guest_that_was_shut_down_after_the_command_was_killed_is_put_in_order(controller: Controller) -> None:
    host = controller.fleet.hosts[SOURCE]
    defined = host.definitions[GUEST]
    controller.fleet.faults.append(faults.crash(faults.at_operation(MoveFilter), after=True))
    with pytest.raises(faults.Crash):
        controller.move()
    shut_down(controller.fleet)
    with pytest.raises(Problem, match="was shut down or started anew") as caught:
        controller.move()
    assert caught.value.exit is Exit.UNDONE
    assert (host.definitions[GUEST], host.ports, host.claims.all(), controller.kept()) == (defined, {}, (), [])


def test_a_guest_that_was_started_anew_on_its_new_nic_keeps_that(controller: Controller) -> None:
    """Though its command was to undo what it had done, and could not."""
    controller.fleet.held.add(ALIAS)
    controller.fleet.faults.append(faults.outage(faults.at_operation(Unplug), after=True))
    with pytest.raises(Problem):
        controller.move()
    assert controller.kept() == [Way.BACK]
    controller.fleet.hosts[SOURCE].down_until = 0.0
    shut_down(controller.fleet)
    start(controller.fleet, CASE)
    controller.move()
    assert (wrong(controller), controller.kept()) == ([], [])


async def test_two_commands_at_a_time_are_one(controller: Controller) -> None:
    folder = operations.named(controller.state, "nic-1")
    with folder.driven(), pytest.raises(Problem) as caught:
        folder.driven().__enter__()
    assert (caught.value.code, caught.value.exit) == ("operation-running", Exit.REFUSED)


async def test_by_the_engine_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is read again as it was written, and a run that has ended is not begun again."""
    engine = vferry.controller.journal.run_journaled
    controller = Controller(tmp_path, make_fleet(CASE), monkeypatch)
    monkeypatch.setattr(vferry.controller.journal, "run_journaled", engine)
    found = await guest_nic.assess(controller.state, SOURCE, GUEST, MAC, CASE.to)
    assert found.plan is not None
    await nic_driving.move(controller.state, found.plan, controller.told.append)
    assert wrong_there(controller.fleet, CASE, found.plan) == []
    assert controller.state.journal.exists()


def test_the_command(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFERRY_STATE", str(controller.state.root))
    monkeypatch.setattr(cli, "open_host", controller.open)
    monkeypatch.setattr(cli, "list_hosts", lambda: [SimpleNamespace(name=SOURCE)])
    words = ("nic", GUEST, MAC.upper(), "--to", "relay")

    def run(*more: str) -> Result:
        return CliRunner().invoke(cli.command, [*words, *more])

    dry = run("--dry-run")
    assert (dry.exit_code, dry.output.count("\n")) == (0, 9), dry.output
    assert "unplug VF 1 of pf0" in dry.output
    assert controller.claims() == 0
    of_ovns = run("--ovn-port", "web1")
    assert (of_ovns.exit_code, "while its guest is off" in of_ovns.output) == (Exit.REFUSED, True), of_ovns.output

    controller.fleet.held.add(ALIAS)
    undone = run()
    assert isinstance(undone.exception, Problem)
    assert undone.exception.exit is Exit.UNDONE
    controller.fleet.held.clear()

    done = run()
    assert (done.exit_code, f"{MAC} of {GUEST} is on the relay" in done.output) == (0, True), done.output
    assert wrong(controller) == []
    assert "is so already" in run().output
    controller.fleet.hosts[SOURCE].machines[GUEST].state = GuestState.PAUSED
    refused = CliRunner().invoke(cli.command, ["nic", GUEST, MAC, "--to", "vf"])
    assert (refused.exit_code, "virsh resume" in refused.output) == (Exit.REFUSED, True), refused.output
