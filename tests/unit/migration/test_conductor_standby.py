"""Migrations over every standby path, and between hosts that have different ones."""

import pytest

from fakes import faults
from fakes.contract import Snapshot, moved
from fakes.samples import CASES, DESTINATION, GUEST, SOURCE, Case, Drive, make_fleet, make_plan
from fakes.world import ON_BRIDGE, PF
from vferry.model.host import Attachment, AttachmentKind
from vferry.model.problem import Exit
from vferry.plan.plan import NetworkMode, Standby

ON_OPENVSWITCH = Standby(on=Attachment(kind=AttachmentKind.OPENVSWITCH, device="ovs0"), uplink=PF)
ON_BOND = Standby(on=ON_BRIDGE.on, uplink="bond0")
ON_MACVTAP = Standby(on=Attachment(kind=AttachmentKind.MACVTAP, device=PF), uplink=PF)
PATHS = {"bridge": ON_BRIDGE, "openvswitch": ON_OPENVSWITCH, "bond": ON_BOND, "macvtap": ON_MACVTAP}
STANDING_BY = [case for case in CASES if case.unplugs or case.mode is NetworkMode.VIRTIO]


def fits(case: Case, here: Standby, there: Standby) -> bool:
    """A NIC of the guest's own stays on a bridge, or on a macvtap."""
    return here.on.bridged == there.on.bridged or (case.has_vf and not case.own_standby)


RUNS = [
    (case, here, there)
    for case in STANDING_BY
    for here in PATHS
    for there in PATHS
    if (here, there) != ("bridge", "bridge") and fits(case, PATHS[here], PATHS[there])
]


@pytest.mark.parametrize(("case", "here", "there"), RUNS, ids=str)
def test_the_guest_goes_there_and_back(case: Case, here: str, there: str) -> None:
    fleet = make_fleet(case, PATHS[here], PATHS[there])
    for turn, (source, destination) in enumerate([(SOURCE, DESTINATION), (DESTINATION, SOURCE)]):
        drive = Drive(fleet, make_plan(fleet, case, source, destination, f"op-{turn}"))
        ending = drive.run()
        assert (ending.exit, ending.degraded, ending.notes) == (Exit.DONE, None, ())
        assert moved(fleet, drive.plan) == []
    assert fleet.running(GUEST) == [SOURCE]


@pytest.mark.parametrize("path", ["bond", "macvtap"])
@pytest.mark.parametrize("case", [case for case in STANDING_BY if case.has_vf], ids=str)
def test_a_copy_that_fails_is_undone(case: Case, path: str) -> None:
    fleet = make_fleet(case, PATHS[path], PATHS[path])
    fleet.pace.fails_with = "out of memory"
    before = Snapshot.of(fleet)
    assert Drive(fleet, make_plan(fleet, case)).run().exit is Exit.UNDONE
    assert before.differences(fleet) == []


@pytest.mark.parametrize("path", ["bond", "macvtap"])
@pytest.mark.parametrize("case", [case for case in STANDING_BY if case.own_standby], ids=str)
def test_a_controller_that_dies_is_taken_over(case: Case, path: str) -> None:
    clean = make_fleet(case, PATHS[path], PATHS[path])
    Drive(clean, make_plan(clean, case)).run()
    for number in range(0, len(clean.calls), 3):
        fleet = make_fleet(case, PATHS[path], PATHS[path])
        drive = Drive(fleet, make_plan(fleet, case))
        fleet.faults.append(faults.crash(faults.at(number), after=True))
        with pytest.raises(faults.Crash):
            drive.run()
        assert drive.run().exit is Exit.DONE, number
        assert moved(fleet, drive.plan) == [], number
