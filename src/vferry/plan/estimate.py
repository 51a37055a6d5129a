"""How long the copy will take, and whether it ends: from what was measured before, with a model as plain as can be.

The first pass sends all memory that is not zero; each one after it what was written during the one before, until the
rest fits into the pause, beside the state of devices that migrate themselves. A page is taken to be written once a
second at most, as it was measured, and differences to copies sent before are not counted on: what comes is likelier to
be better than worse.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from msgspec.structs import replace

from vferry.model.compression import AUTOMATIC, Codec
from vferry.model.guest import StateSize
from vferry.model.host import gateway_cpus
from vferry.model.memory import CodecTrial, Estimate, MemoryUse
from vferry.plan.facts import Facts, Finding, info, warning
from vferry.plan.plan import TransferPlan
from vferry.plan.schedule import LONGEST_PAUSE_S
from vferry.plan.transfer import LIKE, MIB, with_codec

AS_IT_IS = CodecTrial(ratio=1.0, rate=math.inf)


def estimate(facts: Facts, transfer: TransferPlan, state: StateSize | None = None) -> Estimate | None:
    """What to expect of a transfer, with the state of devices; None where the guest's memory was not looked at."""
    if facts.memory is None:
        return None
    return _estimate(facts.guest.memory, facts.memory, _way(facts, transfer), state)


class _Way(NamedTuple):
    """What is to be gone by: a transfer with the source's own limit, between these two hosts."""

    transfer: TransferPlan
    link_rate: int | None
    """Bytes per second, where known."""
    cores: float
    """Those that compress."""


def _way(facts: Facts, transfer: TransferPlan) -> _Way:
    hosts = facts.source, facts.destination
    rates = [host.link_rate for host in hosts if host.link_rate is not None]
    limits = [limit for limit in (transfer.bandwidth, facts.source.migration.bandwidth) if limit]
    # QEMU's own threads are not among the gateways.
    there = [host.cpus if transfer.compression else gateway_cpus(host.cpu_share, host.cpus) for host in hosts]
    cores = min(max(transfer.parallel, transfer.streams), *there)
    return _Way(replace(transfer, bandwidth=min(limits, default=None)), min(rates, default=None), cores)


def about(facts: Facts, transfer: TransferPlan, found: Estimate) -> Iterator[Finding]:
    """What the operator should know of it before."""
    for note in facts.memory.notes if facts.memory else ():
        yield info("not-measured", note[0].upper() + note[1:])
    yield info("estimate", text(found))
    if transfer.codec is Codec.AUTO and _nothing_to_gain(facts, found):
        yield info(
            "nothing-to-gain",
            f"Compressing gains nothing on a link of {_rate(found.link_rate)}: the memory will go as it is, unless the "
            "way turns out to be slower",
        )
    state, rate = found.device_state, found.copy_rate
    if state is not None and rate is not None and _room(rate, transfer, state) is None:
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


def _nothing_to_gain(facts: Facts, found: Estimate) -> bool:
    """Whether codecs were tried, and the link is known, and none of them would be worth it."""
    sample = facts.memory.sample if facts.memory else None
    tried = sample is not None and bool(AUTOMATIC.intersection(sample.codecs))
    return tried and found.link_rate is not None and found.codec is Codec.NONE


def text(found: Estimate) -> str:
    """One sentence."""
    size = f"{_size(found.guest_bytes)} to copy"
    if found.codec is not Codec.NONE:
        size += f", {_size(found.wire_bytes)} with {found.codec.value}"
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
    rate = _pause_rate(_way(facts, transfer))
    if rate is None:
        return f"{_amount(state)}, which makes the guest's pause longer"
    seconds = state.bytes / rate
    time = "less than a millisecond" if seconds < 0.001 else f"about {_short(seconds)}"
    return f"{_amount(state)}, which makes the guest's pause longer by {time} at {_rate(rate)}"


def _pause_rate(way: _Way) -> int | None:
    """What the state of devices is sent at: the link's rate, as in the pause QEMU keeps to no limit.

    That it may be compressed, as in a plain stream, is not counted on.
    """
    return way.link_rate or way.transfer.bandwidth


def _room(rate: float, transfer: TransferPlan, state: StateSize | None) -> float | None:
    """Seconds of the pause for what memory is left, beside the state of devices; None where that does not fit.

    QEMU ends the copy when both fit, at the copy's rate. If not even the state does, the pause is made longer where
    that is allowed, by which memory gains nothing.
    """
    needed = 0.0 if state is None else state.bytes / rate
    usual, most = transfer.downtime_ms / 1000, transfer.most_downtime_ms / 1000
    room = usual - needed if needed < usual else min(usual, most - needed)
    return room if room > 0 else None


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


def _estimate(memory: int, use: MemoryUse, way: _Way, state: StateSize | None) -> Estimate:
    codec, trial = _codec(use, way)
    sample = use.sample
    size = memory if sample is None else round(memory * (1 - sample.zero_pages / sample.pages))
    rate = _copy_rate(trial, way)
    dirty = use.dirty_rate
    room = None if rate is None else _room(rate, way.transfer, state)
    seconds, pause_s = None, None
    if rate is not None and dirty is not None and room is not None and dirty < rate:
        seconds, pause_s = passes(size, rate, dirty, room)
    pause_rate = _pause_rate(way)
    device_s = None if state is None or pause_rate is None else state.bytes / pause_rate
    return Estimate(
        codec=codec,
        guest_bytes=size,
        wire_bytes=round(size / trial.ratio),
        dirty_rate=dirty,
        link_rate=way.link_rate,
        copy_rate=rate,
        seconds=seconds,
        pause_ms=None if pause_s is None else (pause_s + (device_s or 0.0)) * 1000,
        converges=_converges(rate, dirty, room, state),
        device_state=state,
        device_ms=None if device_s is None else device_s * 1000,
    )


def _converges(rate: float | None, dirty: float | None, room: float | None, state: StateSize | None) -> bool | None:
    if rate is None or dirty is None:
        return None
    if dirty < rate and room is None and state is not None and state.precopy:
        # Some of it goes before the pause, into which the rest may fit.
        return None
    return dirty < rate and room is not None


def passes(size: float, rate: float, dirty: float, pause_s: float) -> tuple[float, float]:
    """Seconds until what is left of `size` bytes takes `pause_s` at most, and what it does take.

    `rate` bytes per second are copied and `dirty`, which is less, written meanwhile.

    >>> passes(1000.0, 100.0, 10.0, 0.5)
    (11.0, 0.1)
    """
    share = dirty / rate
    if size <= rate * pause_s:
        return 0.0, size / rate
    count = math.ceil(math.log(rate * pause_s / size) / math.log(share)) if share else 1
    return size / rate * (1 - share**count) / (1 - share), size / rate * share**count


def _codec(use: MemoryUse, way: _Way) -> tuple[Codec, CodecTrial]:
    """The codec that is meant, and what it did; as it is, where that was not tried."""
    tried = {Codec(name): trial for name, trial in use.sample.codecs.items()} if use.sample else {}
    codec = LIKE.get(way.transfer.compression or "", way.transfer.codec)
    if codec is not Codec.AUTO:
        return codec, tried.get(codec, AS_IT_IS)
    choices = {Codec.NONE: AS_IT_IS, **{codec: trial for codec, trial in tried.items() if codec in AUTOMATIC}}

    def gain(codec: Codec) -> tuple[float, float]:
        trial = choices[codec]
        return _copy_rate(trial, way) or 0.0, trial.ratio

    best = max(choices, key=gain)
    return best, choices[best]


def _copy_rate(trial: CodecTrial, way: _Way) -> float | None:
    """Memory's bytes per second: the least of what the link, the compressors and the limit let through."""
    bandwidth = way.transfer.bandwidth
    limits = [] if way.link_rate is None else [way.link_rate * trial.ratio]
    # The limit is on what QEMU sends, which is less where QEMU compresses.
    if bandwidth is not None:
        limits.append(bandwidth * (trial.ratio if way.transfer.compression else 1))
    return min(*limits, trial.rate * way.cores) if limits else None


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
    return f"at most {_size(state.bytes)}" if state.precopy else _size(state.bytes)


def _size(number: float) -> str:
    if number < 1024:
        return f"{number:.0f} bytes"
    return f"{number / 1024:.1f} KiB" if number < MIB else f"{number / MIB:.0f} MiB"


def _rate(rate: float | None) -> str:
    return "?" if rate is None else f"{rate / 1e6:.{0 if rate >= 1e7 else 1}f} MB/s"


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 1 else "a second"
