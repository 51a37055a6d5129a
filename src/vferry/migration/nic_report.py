"""From how the move of a NIC ended to its report. Pure."""

from vferry.migration.report import rows, status
from vferry.migration.stepper import Ending
from vferry.model.report import Kind, Report
from vferry.plan.nic_plan import NicPlan


def make_nic_report(plan: NicPlan, ending: Ending, started: str, total_s: float) -> Report:
    """The report of a move that has ended, one way or another."""
    return Report(
        operation=plan.operation,
        guest=plan.guest,
        source=plan.host,
        destination=plan.host,
        status=status(ending),
        reason=ending.reason,
        started=started,
        total_s=round(total_s, 3),
        network_note="only migrations are probed",
        steps=rows(ending.records),
        degraded="leftovers" if ending.at_destination and ending.notes else None,
        notes=list(ending.notes),
        kind=Kind.NIC,
        mac=plan.mac,
        to=plan.to.value,
    )
