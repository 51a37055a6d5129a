"""What a guest has free and need not be sent: whether its balloon can take it before, and what is said of that."""

from collections.abc import Iterator

from msgspec.structs import replace

from vferry.model.definition import kept_from_balloon
from vferry.model.memory import LEAST_RECLAIMED
from vferry.plan import vfio
from vferry.plan.estimate import freed
from vferry.plan.estimate_words import size_text
from vferry.plan.facts import Facts, Finding, info, warning
from vferry.plan.plan import Plan, TransferPlan


def useless(facts: Facts, plan: Plan) -> str | None:
    """Why the guest's balloon can have nothing left out; None where nothing is known against it."""
    if plan.devices or vfio.staying(plan.moves):
        return "QEMU keeps what it takes while the guest has a device of the host, as it does during this copy"
    return None if facts.definition.live is None else kept_from_balloon(facts.definition.live)


def counted(facts: Facts, plan: Plan | None, transfer: TransferPlan) -> TransferPlan:
    """The transfer as its estimate goes by it: nothing is left out where that cannot be."""
    return transfer if plan is None or useless(facts, plan) is None else replace(transfer, reclaim_free=False)


def about(facts: Facts, plan: Plan | None) -> Iterator[Finding]:
    """That it was asked for and cannot be, or was not and would be worth it."""
    if plan is None:
        return
    why, size = useless(facts, plan), freed(facts.guest.memory, facts.memory)
    if plan.transfer.reclaim_free and why:
        yield warning(
            "reclaim-useless", f"The guest's balloon leaves nothing out of the copy: {why}", "Leave --reclaim-free out"
        )
    elif not plan.transfer.reclaim_free and not why and size >= LEAST_RECLAIMED:
        yield info(
            "free-memory",
            f"At least {size_text(size)} of what the copy sends is memory that the guest has free: --reclaim-free "
            "leaves it out",
        )
