"""What is said of an estimate: the sentence, what the operator should know before, and what may be done about it."""

import math
from collections.abc import Iterator

from vferry.model.compression import Codec
from vferry.model.guest import StateSize
from vferry.model.memory import Estimate
from vferry.plan.estimate import estimate, nothing_to_gain, pause_rate, room_of, way_of
from vferry.plan.facts import Facts, Finding, info, warning
from vferry.plan.plan import TransferPlan
from vferry.plan.schedule import LONGEST_PAUSE_S
from vferry.plan.transfer import MIB, with_codec


def about(facts: Facts, transfer: TransferPlan, found: Estimate) -> Iterator[Finding]:
    """What the operator should know of it before."""
    for note in facts.memory.notes if facts.memory else ():
        yield info("not-measured", note[0].upper() + note[1:])
    yield info("estimate", text(found))
    if transfer.codec is Codec.AUTO and nothing_to_gain(facts, found):
        yield info(
            "nothing-to-gain",
            f"Compressing gains nothing on a link of {_rate(found.link_rate)}: the memory will go as it is, unless the "
            "way turns out to be slower",
        )
    state, rate = found.device_state, found.copy_rate
    if state is not None and rate is not None and room_of(rate, transfer, state) is None:
        yield _too_much_state(rate, transfer, state)
    elif found.converges is False:
        yield warning(
            "will-not-converge",
            f"{facts.guest.name} writes {_rate(found.dirty_rate)} and only {_rate(found.copy_rate)} can be copied",
            _remedy(facts, transfer, found),
        )
    elif found.seconds is not None and found.seconds > transfer.deadline_s:
        yield warning(
            "past-deadline",
            f"The copy is expected to take {found.seconds:.0f} s, longer than the {transfer.deadline_s:.0f} s it has",
            "Give more time with --deadline",
        )


def text(found: Estimate) -> str:
    """One sentence."""
    size = f"{size_text(found.guest_bytes)} to copy"
    if found.codec is not Codec.NONE:
        size += f", {size_text(found.wire_bytes)} with {found.codec.value}"
    parts = [f"Estimate: {size}"]
    if found.seconds is not None:
        parts.append(f"in about {_time(found.seconds)} at {_rate(found.copy_rate)}")
    elif found.copy_rate is None:
        parts.append("the link's speed is not known (say it with --bandwidth)")
    if found.dirty_rate is not None:
        parts.append(f"the guest writes {_rate(found.dirty_rate)}")
    if found.pause_ms is not None:
        devices = "" if found.device_ms is None else " and the state of devices"
        parts.append(f"{found.pause_ms:.0f} ms of its pause for memory{devices}")
    return ", ".join(parts)


def device_text(facts: Facts, transfer: TransferPlan, state: StateSize | None) -> str:
    """What the state of devices does to the guest's pause, as the end of a sentence."""
    if state is None or state.silent:
        return "which makes the guest's pause longer; how much it is is not known"
    rate = pause_rate(way_of(facts, transfer))
    if rate is None:
        return f"{_amount(state)}, which makes the guest's pause longer"
    seconds = state.bytes / rate
    time = "less than a millisecond" if seconds < 0.001 else f"about {_short(seconds)}"
    return f"{_amount(state)}, which makes the guest's pause longer by {time} at {_rate(rate)}"


def _too_much_state(rate: float, transfer: TransferPlan, state: StateSize) -> Finding:
    needed, allowed = state.bytes / rate, _short(transfer.most_downtime_ms / 1000)
    longer = f"Allow a longer pause: --max-pause {math.floor(needed) + 1}"
    more = ", or raise --bandwidth" if transfer.bandwidth else ""
    return warning(
        "too-much-device-state",
        f"The state of its devices, {_amount(state)}, takes {_short(needed)} at {_rate(rate)}, and the pause may last "
        f"{allowed}: the copy {'may' if state.precopy else 'will'} not end",
        (longer if needed < LONGEST_PAUSE_S else "Use a faster link: no pause that can be allowed would do") + more,
    )


def _remedy(facts: Facts, transfer: TransferPlan, found: Estimate) -> str:
    """The codec that would make the difference, if one would; else what may be allowed."""
    both = set(facts.source.codecs).intersection(facts.destination.codecs)
    tried = facts.memory.sample.codecs if facts.memory and facts.memory.sample else {}
    for name in sorted(both.intersection(tried) - {found.codec}, key=lambda name: -tried[name].ratio):
        options, other = with_codec(transfer, Codec(name))
        expected = estimate(facts, other, found.device_state)
        if expected and expected.converges:
            return f"Use {options}, with which it is expected to end"
    more = ", or raise --bandwidth" if transfer.bandwidth else ""
    return f"Allow a longer pause (--max-pause) or a slower guest (--throttle){more}"


def _amount(state: StateSize) -> str:
    return f"at most {size_text(state.bytes)}" if state.precopy else size_text(state.bytes)


def size_text(number: float) -> str:
    if number < 1024:
        return f"{number:.0f} bytes"
    return f"{number / 1024:.1f} KiB" if number < MIB else f"{number / MIB:.0f} MiB"


def _rate(rate: float | None) -> str:
    return "?" if rate is None else f"{rate / 1e6:.{0 if rate >= 1e7 else 1}f} MB/s"


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 1 else "a second"
