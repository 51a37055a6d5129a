"""`vferry operation`: migrations and moves of NICs, side by side."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fakes import faults
from fakes.nic_controller import Controller
from fakes.nic_moves import ALIAS, CASES, make_fleet
from fakes.samples import GUEST, MAC, SOURCE
from vferry.cli import operation as cli
from vferry.controller import operations
from vferry.controller.operations import OperationState
from vferry.host.api import Define
from vferry.model.problem import Exit, Problem
from vferry.model.report import Phase, Status


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    monkeypatch.setenv("VFERRY_STATE", str(tmp_path))
    return Controller(tmp_path, make_fleet(CASES[1]), monkeypatch)


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.command, [*words])


def killed(controller: Controller) -> str:
    """A move whose controller was killed: its id."""
    controller.fleet.faults.append(faults.crash(faults.at_operation(Define)))
    with pytest.raises(faults.Crash):
        controller.move()
    (shown,) = controller.shown()
    return shown.operation


def migration(controller: Controller, guest: str, status: str, code: Exit | None) -> str:
    folder = operations.named(controller.state, "op-1a2b3c4d")
    with folder.driven():
        folder.write_state(
            OperationState(
                operation=folder.name,
                guest=guest,
                source="host1",
                destination="host2",
                status=status,
                phase=Phase.DONE,
                started="2026-01-01T00:00:00.000Z",
                exit=None if code is None else int(code),
            )
        )
    return folder.name


def listed() -> Any:
    return json.loads(run("list", "--json").output)


def test_both_are_listed(controller: Controller) -> None:
    migration(controller, "guest9", Status.COMPLETED, Exit.DONE)
    controller.move()
    of_migration, of_nic = listed()
    names = ("operation", "guest", "source", "destination", "status", "phase", "started")
    assert tuple(of_migration)[:7] == names, "what programs read stays"
    assert [of_migration[name] for name in names] == [
        "op-1a2b3c4d",
        "guest9",
        "host1",
        "host2",
        "completed",
        "done",
        "2026-01-01T00:00:00.000Z",
    ]
    assert [of_migration[name] for name in ("kind", "mac", "to", "step")] == ["migration", None, None, None]
    assert (of_nic["kind"], of_nic["guest"], of_nic["mac"], of_nic["to"]) == ("nic", GUEST, MAC, "relay")
    assert (of_nic["source"], of_nic["destination"], of_nic["status"]) == (SOURCE, SOURCE, "completed")
    assert f"{MAC} to relay" in " ".join(run("list").output.split())


def test_one_that_was_left_is_shown_and_recovered(controller: Controller) -> None:
    name = killed(controller)
    shown = run("show", name)
    assert (shown.exit_code, f"{GUEST} on {SOURCE}, {MAC} to relay: interrupted" in shown.output) == (0, True)
    assert "define web with" in shown.output, "the step that it is at"
    assert json.loads(run("show", name, "--json").output)["status"] == "interrupted"
    followed = run("follow", name)
    assert isinstance(followed.exception, Problem)
    assert f"vferry operation recover {name}" in followed.exception.remedy

    recovered = run("recover", name)
    assert (recovered.exit_code, f"{GUEST} on {SOURCE}, {MAC} to relay: completed" in recovered.output) == (0, True)
    assert "VF before" not in recovered.output, "it is no migration"
    assert [row["status"] for row in listed()] == ["completed"]
    again = run("recover", name)
    assert isinstance(again.exception, Problem)
    assert (again.exception.code, again.exception.exit) == ("nothing-to-recover", Exit.DONE)
    assert "Nothing to recover" in run("recover").output

    report = json.loads(run("show", name, "--json").output)
    assert (report["kind"], report["mac"], report["to"], report["status"]) == ("nic", MAC, "relay", "completed")
    assert {"define", "unplug-vf", "wipe-vf"} <= {step["name"] for step in report["steps"]}
    assert run("follow", name).exit_code == 0


def test_what_is_undone_by_recovering_ends_with_4(controller: Controller) -> None:
    killed(controller)
    controller.fleet.held.add(ALIAS)  # the VF
    recovered = run("recover", "--json")
    assert (recovered.exit_code, json.loads(recovered.stdout)[0]["status"]) == (Exit.UNDONE, "undone")
    assert "Nothing to recover" in run("recover").output


def test_one_that_cannot_be_recovered_now_does_not_keep_the_others(controller: Controller) -> None:
    name = killed(controller)
    lost = migration(controller, "guest9", Status.FAILED, Exit.OPERATOR)
    (operations.named(controller.state, lost).root / "plan.json").write_text("{}")
    folder = operations.named(controller.state, lost)
    with folder.driven():
        recovered = run("recover", "--json")
    assert recovered.exit_code == Exit.REFUSED
    assert [each["operation"] for each in json.loads(recovered.stdout)] == [name]
    assert f"vferry: {lost}: " in recovered.stderr


@pytest.mark.parametrize("words", [("abort",), ("set", "--bandwidth", "1M"), ("recover", "--guest-is-at", SOURCE)])
def test_what_is_for_migrations_is_not_done_to_a_nic(controller: Controller, words: tuple[str, ...]) -> None:
    name = killed(controller)
    refused = run(words[0], name, *words[1:])
    assert isinstance(refused.exception, Problem)
    assert refused.exception.code == "no-migration"
    assert [row["status"] for row in listed()] == ["interrupted"]
