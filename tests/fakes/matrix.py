"""What the matrices of faults share: the calls of a migration that goes well, and the proof that another one can."""

from functools import cache

from fakes.contract import Snapshot
from fakes.fleet import Call
from fakes.samples import DESTINATION, GUEST, SOURCE, Case, Drive, make_fleet, make_plan
from vferry.model.problem import Exit
from vferry.plan.plan import Plan


@cache
def plan_of(case: Case) -> Plan:
    return make_plan(make_fleet(case), case)


@cache
def clean_calls(case: Case) -> tuple[Call, ...]:
    fleet = make_fleet(case)
    assert Drive(fleet, plan_of(case)).run().exit is Exit.DONE
    return tuple(fleet.calls)


PROVEN: set[str] = set()
"""States of the fleet from which a second migration has succeeded: it need not be tried again."""


def second_migration(drive: Drive, case: Case) -> list[str]:
    """Moves the guest once more, from wherever it is."""
    state = f"{case} {Snapshot.of(drive.fleet)}"
    if state in PROVEN:
        return []
    (here,) = drive.fleet.running(GUEST)
    there = DESTINATION if here == SOURCE else SOURCE
    plan = make_plan(drive.fleet, case, here, there, "op-2")
    ending = Drive(drive.fleet, plan).run()
    if ending.exit is Exit.DONE:
        PROVEN.add(state)
    return [] if ending.exit is Exit.DONE else [f"a second migration: {ending.exit!r}, {ending.reason}, {ending.notes}"]
