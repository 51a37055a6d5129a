"""Which network modes would do for a guest and a host, and what stands in the way of the others."""

from msgspec import Struct
from msgspec.structs import replace

from vferry.plan.facts import Facts, Finding, Wishes
from vferry.plan.plan import NetworkMode
from vferry.plan.preflight import assess


class Outlook(Struct, frozen=True, kw_only=True):
    """One mode: it is possible without `findings`, and with none that is an error."""

    mode: NetworkMode
    possible: bool
    findings: tuple[Finding, ...] = ()
    """Those that not every mode has."""


def outlooks(facts: Facts, wishes: Wishes) -> tuple[Outlook, ...]:
    """Every mode, as if it were asked for."""
    unmeasured = replace(facts, memory=None)
    found = {mode: assess(unmeasured, replace(wishes, mode=mode)) for mode in NetworkMode}
    common = set.intersection(*({*assessment.findings} for assessment in found.values()))
    return tuple(
        Outlook(
            mode=mode,
            possible=assessment.plan is not None,
            findings=tuple(finding for finding in assessment.findings if finding not in common),
        )
        for mode, assessment in found.items()
    )
