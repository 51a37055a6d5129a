"""Whether QEMU sends the memory by itself, over its own TLS: faster on a fast link, where gateways only pass it on."""

from collections.abc import Iterator

from msgspec.structs import replace

from vferry.model.compression import Codec
from vferry.plan.estimate import estimate, nothing_to_gain
from vferry.plan.facts import Facts, Finding, info, warning
from vferry.plan.plan import TransferPlan


def settled(facts: Facts, wanted: TransferPlan) -> TransferPlan:
    """The transfer with `direct` as it will be; then nothing is compressed, nor are there copies of pages."""
    if not wanted.direct:
        return wanted
    if not _worth_it(facts, wanted) or lacking(facts) is not None:
        return replace(wanted, direct=False)
    return replace(wanted, codec=Codec.NONE, delta_memory=0, resident=False)


def lacking(facts: Facts) -> str | None:
    """Why QEMU cannot send by itself between these hosts; None where nothing is known against it."""
    hosts = (facts.source, facts.destination)
    for host in hosts:
        if host.qemu_tls is None:
            return f"the agent of {host.name} is of a version that does not know of it"
        if host.qemu_tls.lacks is not None:
            return f"on {host.name}, {host.qemu_tls.lacks}"
    here, there = (host.qemu_tls.authority for host in hosts if host.qemu_tls)
    return None if here == there else "the certificates of their QEMUs are of two authorities"


def about(facts: Facts, wanted: TransferPlan) -> Iterator[Finding]:
    """What becomes of the wish."""
    if not wanted.direct or not _worth_it(facts, wanted):
        return
    if why := lacking(facts):
        names = f"{facts.source.name} and {facts.destination.name}"
        yield warning(
            "not-direct",
            f"The memory goes through the gateways, for QEMU cannot send it by itself: {why}",
            f"Leave --direct out, or give QEMU certificates on {names}: vferry host certify-qemu",
        )
    else:
        yield info("direct", "QEMU sends the memory by itself, over its own TLS")


def _worth_it(facts: Facts, wanted: TransferPlan) -> bool:
    """Where nothing is compressed, or nothing would be gained by that, which must have been measured."""
    if wanted.codec is Codec.NONE:
        return True
    found = estimate(facts, wanted)
    return found is not None and nothing_to_gain(facts, found)
