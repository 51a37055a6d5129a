"""How long the copy will take, and whether it ends: from what was measured before, with a model as plain as can be.

The first pass sends all memory that is not zero; each one after it what was written during the one before, until the
rest fits into the pause, beside the state of devices that migrate themselves. A page is taken to be written once a
second at most, as it was measured, and differences to copies sent before are not counted on: what comes is likelier to
be better than worse.
"""

import math
from typing import NamedTuple

from msgspec.structs import replace

from vferry.model.compression import AUTOMATIC, Codec
from vferry.model.guest import StateSize
from vferry.model.host import gateway_cpus
from vferry.model.memory import CodecTrial, Estimate, MemoryUse, reclaimable
from vferry.plan.facts import Facts
from vferry.plan.plan import TransferPlan
from vferry.plan.transfer import LIKE

AS_IT_IS = CodecTrial(ratio=1.0, rate=math.inf)


def estimate(facts: Facts, transfer: TransferPlan, state: StateSize | None = None) -> Estimate | None:
    """What to expect of a transfer, with the state of devices; None where the guest's memory was not looked at."""
    if facts.memory is None:
        return None
    return _estimate(facts.guest.memory, facts.memory, way_of(facts, transfer), state)


class Way(NamedTuple):
    """What is to be gone by: a transfer with the source's own limit, between these two hosts."""

    transfer: TransferPlan
    link_rate: int | None
    """Bytes per second, where known."""
    cores: float
    """Those that compress."""


def way_of(facts: Facts, transfer: TransferPlan) -> Way:
    hosts = facts.source, facts.destination
    rates = [host.link_rate for host in hosts if host.link_rate is not None]
    limits = [limit for limit in (transfer.bandwidth, facts.source.migration.bandwidth) if limit]
    # QEMU's own threads are not among the gateways.
    there = [host.cpus if transfer.compression else gateway_cpus(host.cpu_share, host.cpus) for host in hosts]
    cores = min(max(transfer.parallel, transfer.streams), *there)
    return Way(replace(transfer, bandwidth=min(limits, default=None)), min(rates, default=None), cores)


def nothing_to_gain(facts: Facts, found: Estimate) -> bool:
    """Whether codecs were tried, and the link is known, and none of them would be worth it."""
    sample = facts.memory.sample if facts.memory else None
    tried = sample is not None and bool(AUTOMATIC.intersection(sample.codecs))
    return tried and found.link_rate is not None and found.codec is Codec.NONE


def pause_rate(way: Way) -> int | None:
    """What the state of devices is sent at: the link's rate, as in the pause QEMU keeps to no limit.

    That it may be compressed, as in a plain stream, is not counted on.
    """
    return way.link_rate or way.transfer.bandwidth


def room_of(rate: float, transfer: TransferPlan, state: StateSize | None) -> float | None:
    """Seconds of the pause for what memory is left, beside the state of devices; None where that does not fit.

    QEMU ends the copy when both fit, at the copy's rate. If not even the state does, the pause is made longer where
    that is allowed, by which memory gains nothing.
    """
    needed = 0.0 if state is None else state.bytes / rate
    usual, most = transfer.downtime_ms / 1000, transfer.most_downtime_ms / 1000
    room = usual - needed if needed < usual else min(usual, most - needed)
    return room if room > 0 else None


def _estimate(memory: int, use: MemoryUse, way: Way, state: StateSize | None) -> Estimate:
    codec, trial = _codec(use, way)
    sample = use.sample
    size = memory if sample is None else round(memory * (1 - sample.zero_pages / sample.pages))
    if way.transfer.reclaim_free:
        size -= freed(memory, use)
    rate = _copy_rate(trial, way)
    dirty = use.dirty_rate
    room = None if rate is None else room_of(rate, way.transfer, state)
    seconds, pause_s = None, None
    if rate is not None and dirty is not None and room is not None and dirty < rate:
        seconds, pause_s = passes(size, rate, dirty, room)
    in_pause = pause_rate(way)
    device_s = None if state is None or in_pause is None else state.bytes / in_pause
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


def freed(memory: int, use: MemoryUse | None) -> int:
    """Bytes that a guest has free, may be taken from it, and surely are not zero: as many as others cannot be."""
    if use is None or use.free is None or use.sample is None:
        return 0
    zero = round(memory * use.sample.zero_pages / use.sample.pages)
    return max(0, reclaimable(memory, use.free) - zero)


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


def _codec(use: MemoryUse, way: Way) -> tuple[Codec, CodecTrial]:
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


def _copy_rate(trial: CodecTrial, way: Way) -> float | None:
    """Memory's bytes per second: the least of what the link, the compressors and the limit let through."""
    bandwidth = way.transfer.bandwidth
    limits = [] if way.link_rate is None else [way.link_rate * trial.ratio]
    # The limit is on what QEMU sends, which is less where QEMU compresses.
    if bandwidth is not None:
        limits.append(bandwidth * (trial.ratio if way.transfer.compression else 1))
    return min(*limits, trial.rate * way.cores) if limits else None
