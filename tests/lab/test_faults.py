"""What fails while a guest migrates, when, and what must be true then. `make test` runs a smoke of it."""

import contextlib
import subprocess
from collections.abc import Callable

import pytest

from lab.operator import Migration, Scene, asked, other, vferry

BEFORE = ("prepare", "to-standby", "copy")
AFTER = ("to-vf",)

Fault = Callable[[Scene, Migration], None]


def kill_controller(scene: Scene, migration: Migration) -> None:
    migration.kill()


def ask_abort(scene: Scene, migration: Migration) -> None:
    assert vferry("operation", "abort", migration.operation).returncode == 0


def kill_sending_gateway(scene: Scene, migration: Migration) -> None:
    scene.lab.run(other(migration.destination), ["pkill", "-9", "-f", "vferry.*gateway"])


def kill_receiving_gateway(scene: Scene, migration: Migration) -> None:
    scene.lab.run(migration.destination, ["pkill", "-9", "-f", "vferry.*gateway"])


def kill_source_agent(scene: Scene, migration: Migration) -> None:
    scene.lab.run(other(migration.destination), ["systemctl", "kill", "-s", "KILL", "vferry-agent"])


def kill_destination_agent(scene: Scene, migration: Migration) -> None:
    scene.lab.run(migration.destination, ["systemctl", "kill", "-s", "KILL", "vferry-agent"])


ANY_PHASE = (ask_abort, kill_source_agent, kill_destination_agent)
GATEWAYS = (kill_sending_gateway, kill_receiving_gateway)


def begin(scene: Scene, phase: str) -> Migration:
    migration = Migration(scene.guest, other(scene.host))
    migration.wait_for(phase)
    return migration


def survived(scene: Scene, migration: Migration, code: int, *, again: bool = False) -> None:
    """The guest is whole on one of the two hosts, as the exit code says; `again`: the next migration succeeds.

    In the smoke the next test's migration shows that.
    """
    source = other(migration.destination)
    host = migration.destination if code in (0, 5) and scene.host == migration.destination else source
    scene.assert_whole(host)
    scene.assert_nothing_left()
    if again:
        report = asked("migrate", scene.guest, other(host))
        assert report["status"] == "completed", report
        scene.assert_whole(other(host))


@pytest.mark.lab
@pytest.mark.parametrize("phase", ["to-standby"])
def test_a_killed_controller_is_taken_over(scene: Scene, phase: str) -> None:
    recovers(scene, phase)


@pytest.mark.matrix
@pytest.mark.parametrize("phase", ["prepare", "copy", "to-vf", "restore"])
def test_a_killed_controller_is_taken_over_in_each_phase(scene: Scene, phase: str) -> None:
    recovers(scene, phase, again=True)


def recovers(scene: Scene, phase: str, *, again: bool = False) -> None:
    migration = begin(scene, phase)
    kill_controller(scene, migration)
    done = vferry("operation", "recover", migration.operation)
    assert done.returncode in (0, 4), done.stdout + done.stderr
    survived(scene, migration, done.returncode, again=again)


@pytest.mark.lab
def test_a_gateway_killed_while_copying_is_undone(scene: Scene) -> None:
    undone_or_done(scene, "copy", kill_sending_gateway)


@pytest.mark.lab
def test_an_abort_is_undone(scene: Scene) -> None:
    migration = begin(scene, "to-standby")
    ask_abort(scene, migration)
    code, report = migration.end()
    assert code == 6, report
    assert report["status"] == "aborted"
    survived(scene, migration, code)


@pytest.mark.matrix
@pytest.mark.parametrize("phase", BEFORE + AFTER)
@pytest.mark.parametrize("fault", ANY_PHASE)
def test_faults_in_each_phase(scene: Scene, phase: str, fault: Fault) -> None:
    undone_or_done(scene, phase, fault, again=True)


@pytest.mark.matrix
@pytest.mark.parametrize("fault", GATEWAYS)
@pytest.mark.parametrize("phase", ["to-standby", "copy"])
def test_gateways_killed(scene: Scene, phase: str, fault: Fault) -> None:
    undone_or_done(scene, phase, fault, again=True)


def undone_or_done(scene: Scene, phase: str, fault: Fault, *, again: bool = False) -> None:
    """Before the resume the guest stays or comes back; after it, it is at the destination."""
    migration = begin(scene, phase)
    fault(scene, migration)
    code, report = migration.end()
    assert code in (0, 4, 6), report
    if phase in AFTER:
        assert report["status"] == "completed", report
    survived(scene, migration, code, again=again)


@pytest.mark.matrix
@pytest.mark.parametrize("phase", BEFORE)
def test_a_link_that_is_cut_for_ten_seconds(scene: Scene, phase: str) -> None:
    migration = begin(scene, phase)
    scene.lab.cut_link(migration.destination, "mgmt")
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            migration.process.wait(timeout=10)
    finally:
        scene.lab.join_link(migration.destination, "mgmt")
    code, _report = migration.end()
    if code == 5:
        done = vferry("operation", "recover", migration.operation)
        code = done.returncode
        assert code in (0, 4), done.stdout
    survived(scene, migration, code, again=True)
