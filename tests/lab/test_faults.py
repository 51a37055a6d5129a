"""What fails while a guest migrates, when, and what must be true then: fault × phase × kind of guest.

`make test` runs a smoke of it, `make test-lab` all, and prints how each ended as a table.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import pytest

from lab import faults
from lab.faults import Fault
from lab.operator import Migration, Scene, asked, certified_qemu, other, vferry

Record = Callable[[str, object], None]
"""Writes down a line of the table that ends `make test-lab`."""

ENDS = {0: "completed", 4: "undone", 5: "operator", 6: "aborted"}
BEFORE = ("prepare", "to-standby", "copy")


@dataclass(frozen=True)
class Case:
    """`ends`: how it may end; what needs the operator is then put right with one command. `home`: the guest stays."""

    fault: Fault
    phase: str
    ends: tuple[str, ...]
    guest: str = "guest1"
    smoke: bool = False
    direct: bool = False
    """Whether QEMU sends by itself."""

    @property
    def name(self) -> str:
        direct = ", direct" if self.direct else ""
        return f"{self.fault.name} in {self.phase}, {self.guest}{direct}".replace(" ", "_")


STAYS = ("undone",)
EITHER = ("undone", "completed")
GOES = ("completed",)

CASES = [
    *(Case(faults.ABORT, phase, ("aborted",), smoke=phase == "to-standby") for phase in BEFORE),
    Case(faults.ABORT, "to-vf", GOES),
    *(Case(faults.CONTROLLER, phase, EITHER, smoke=phase == "to-standby") for phase in (*BEFORE, "to-vf", "restore")),
    # libvirt's migration goes on without an agent, which is restarted: it may be in time for the next step.
    *(Case(faults.SOURCE_AGENT, phase, EITHER) for phase in BEFORE),
    *(Case(faults.DESTINATION_AGENT, phase, EITHER) for phase in BEFORE),
    *(Case(fault, "to-vf", GOES) for fault in (faults.SOURCE_AGENT, faults.DESTINATION_AGENT)),
    *(Case(faults.SENDING, phase, STAYS, smoke=phase == "copy") for phase in ("to-standby", "copy")),
    *(Case(faults.RECEIVING, phase, STAYS) for phase in ("to-standby", "copy")),
    *(Case(faults.LINK, phase, (*EITHER, "operator")) for phase in BEFORE),
    *(Case(faults.DESTINATION, phase, ("undone", "operator")) for phase in ("to-standby", "copy")),
    Case(faults.NO_VF, "copy", ("operator",)),
    *(Case(fault, "copy", STAYS, "bond1") for fault in (faults.SENDING, faults.RECEIVING)),
    Case(faults.ABORT, "copy", ("aborted",), "bond1"),
    Case(faults.CONTROLLER, "to-vf", GOES, "bond1"),
    Case(faults.NO_VF, "copy", ("operator",), "bond1"),
    *(Case(fault, "copy", STAYS, "guest2") for fault in (faults.SENDING, faults.RECEIVING)),
    Case(faults.ABORT, "copy", ("aborted",), "guest2"),
    Case(faults.CONTROLLER, "copy", EITHER, "guest2"),
    *(Case(fault, "copy", STAYS, "guest2", direct=True) for fault in (faults.SENDING, faults.RECEIVING)),
    Case(faults.ABORT, "copy", ("aborted",), "guest2", direct=True),
    Case(faults.LINK, "copy", (*EITHER, "operator"), "guest2", direct=True),
    Case(faults.DESTINATION, "copy", ("undone", "operator"), "guest2", direct=True),
    Case(faults.RECEIVING, "copy", STAYS, "macvtap1"),
    Case(faults.DESTINATION_AGENT, "copy", EITHER, "macvtap1"),
]


def _marked(case: Case) -> object:
    mark = pytest.mark.lab if case.smoke else pytest.mark.matrix
    return pytest.param(case, id=case.name, marks=[mark, pytest.mark.guest(case.guest)])


@pytest.fixture
def record(scene: Scene, record_property: Record) -> Record:
    record_property("guest", scene.guest)
    return record_property


@pytest.mark.parametrize("case", [_marked(case) for case in CASES])
def test_the_guest_survives(scene: Scene, case: Case, record: Record) -> None:
    record("fault", case.fault.name)
    record("phase", case.phase)
    with certified_qemu(scene) if case.direct else nullcontext():
        _survive(scene, case, record)


def _survive(scene: Scene, case: Case, record: Record) -> None:
    migration = scene.migrate(*(["--direct"] if case.direct else []))
    source = migration.source
    migration.wait_for(case.phase)
    case.fault.strike(scene, migration)
    code = _recovered(migration) if case.fault is faults.CONTROLLER else migration.end()[0]
    record("ended", ENDS[code])
    case.fault.heal(scene, migration)
    assert ENDS[code] in case.ends, migration.said
    if ENDS[code] == "operator":
        code = _recovered(migration)
    host = migration.destination if code == 0 else source
    scene.assert_whole(host)
    scene.assert_nothing_left()
    if not case.smoke:
        _goes_next_time(scene, host)


@pytest.mark.matrix
@pytest.mark.guest("bond1")
def test_a_guest_that_refuses_the_unplug_goes_on_on_its_vf(scene: Scene, record: Record) -> None:
    record("fault", "the guest refuses the unplug")
    record("phase", "to-standby")
    with scene.booted_with("acpiphp.disable=1"):
        migration = scene.migrate()
        code, report = migration.end()
        record("ended", ENDS[code])
        assert code == 4, report
        assert "has not let go" in report["reason"]
        scene.assert_whole(migration.source)
        scene.assert_nothing_left()


@pytest.mark.matrix
def test_a_destination_lost_for_good_leaves_a_definition_to_start_from(scene: Scene, record: Record) -> None:
    record("fault", "destination lost for good")
    record("phase", "to-vf")
    migration = scene.migrate()
    source = migration.source
    migration.wait_for("to-vf")
    scene.lab.kill_host(migration.destination)
    code, report = migration.end()
    record("ended", ENDS[code])
    assert code == 5, report
    scene.run(source, f"virsh start {scene.guest}")
    scene.await_answer()
    scene.lab.start_host(migration.destination)
    done = vferry("operation", "recover", migration.operation, "--guest-is-at", source)
    assert done.returncode in (0, 4), done.stdout + done.stderr
    scene.assert_whole(source)
    scene.assert_nothing_left()


@pytest.mark.matrix
def test_nothing_is_resumed_on_a_guess(scene: Scene, record: Record) -> None:
    record("fault", faults.UNKNOWN.name)
    record("phase", "copy")
    migration = scene.migrate()
    source = migration.source
    migration.wait_for("copy")
    faults.UNKNOWN.strike(scene, migration)
    code, report = migration.end()
    record("ended", ENDS[code])
    assert code == 5, report
    assert scene.state(source) == "paused"
    said = " ".join([report["reason"], *report["notes"]])
    for host in (source, migration.destination):
        assert f"vferry operation recover {migration.operation} --guest-is-at {host}" in said
    faults.UNKNOWN.heal(scene, migration)
    keeper = scene.settled_at(migration)
    done = vferry("operation", "recover", migration.operation, "--guest-is-at", keeper)
    assert done.returncode in (0, 4), done.stdout + done.stderr
    scene.assert_whole(keeper)
    scene.assert_nothing_left()
    _goes_next_time(scene, keeper)


def _recovered(migration: Migration) -> int:
    done = vferry("operation", "recover", migration.operation)
    migration.said += done.stdout + done.stderr
    return done.returncode


def _goes_next_time(scene: Scene, host: str) -> None:
    report = asked("migrate", scene.guest, other(host), "--no-probe")
    assert report["status"] == "completed", report
    assert report["degraded"] is None, report
    scene.assert_whole(other(host))
