"""How the memory goes: over how many streams, compressed by what, with how much memory for copies of pages."""

from collections.abc import Iterator
from typing import NamedTuple

from msgspec.structs import replace

from vferry.host.api import QemuAbilities
from vferry.model.compression import AUTOMATIC, Codec
from vferry.model.host import Inventory
from vferry.plan.facts import Facts, Finding, error, info, warning
from vferry.plan.plan import TransferPlan
from vferry.plan.schedule import Abort, Action, Pause, Schedule, Throttle, pauses

CHANNELS = 2
"""multifd's, where nobody says how many: at each host a thread or two for each."""
MIB = 1 << 20
PAUSE_MS = 300
"""How long the guest may be paused for the last of its memory, at first. It is QEMU's own default."""
INDEX = 32
"""A gateway needs one byte to find the copies for so many bytes of them, in a guest up to 25 times as large."""


class Method(NamedTuple):
    """A way of QEMU's to send memory: the capability that it needs, and the compression by libvirt's name."""

    capability: str | None = None
    compression: str | None = None

    @property
    def multifd(self) -> bool:
        return self.capability == "multifd"


METHODS = {
    "plain": Method(),
    "multifd": Method("multifd"),
    "multifd-zlib": Method("multifd", "zlib"),
    "multifd-zstd": Method("multifd", "zstd"),
    "xbzrle": Method("xbzrle", "xbzrle"),
}
"""By the names of policies."""
LIKE = {"zlib": Codec.DEFLATE, "zstd": Codec.ZSTD}
"""Codecs of the gateway that do what QEMU's own compression does."""
PASSES_COMPRESSION_ON = (9, 4, 0)
"""libvirt since then takes multifd's compression. It cannot be asked: it has no list of what it takes."""


def choose(
    policy: str,
    codec: Codec,
    streams: int | None,
    delta_memory: int,
    *,
    resident: bool = False,
    bandwidth: int | None = None,
    deadline_s: float = 600.0,
    reclaim_free: bool = False,
    direct: bool = False,
    when_stalled: Schedule = (),
) -> TransferPlan:
    """The transfer that was asked for; `policy` ``auto`` takes multifd for whatever is compressed or spread.

    For multifd's packets say where pages are: only there does the gateway find those that are zero, or sent again.
    It has a thread for each of multifd's channels, so that each is one stream; a plain stream it spreads itself.
    What QEMU compresses the gateways leave as it is. Where it may send by itself, it is faster so.
    """
    if policy == "auto":
        policy = "multifd" if codec is not Codec.NONE or (streams or 1) > 1 or direct else "plain"
    method = METHODS[policy]
    codec = Codec.NONE if method.compression else codec
    compressed = codec is not Codec.NONE
    copies = delta_memory if method.multifd and compressed else 0
    return TransferPlan(
        policy=policy,
        compression=method.compression,
        cache=_power_of_two(delta_memory) if policy == "xbzrle" else 0,
        parallel=streams or CHANNELS if method.multifd else 0,
        codec=codec,
        streams=1 if method.multifd or not compressed else streams or 1,
        delta_memory=copies,
        resident=resident and copies > 0,
        bandwidth=bandwidth,
        deadline_s=deadline_s,
        reclaim_free=reclaim_free,
        direct=direct and codec in (Codec.NONE, Codec.AUTO),
        # A pause that is shorter is a limit from the start.
        downtime_ms=min((PAUSE_MS, *pauses(when_stalled))),
        when_stalled=when_stalled,
    )


def with_codec(transfer: TransferPlan, codec: Codec) -> tuple[str, TransferPlan]:
    """The same transfer with another codec, and the options that make it so.

    A plain stream's plan does not tell whether one stream was asked for, so the options say how many there are to be.
    """
    options, parallel = f"--codec {codec.value}", transfer.parallel
    if not parallel and transfer.codec is Codec.NONE:
        options, parallel = f"{options} --streams {CHANNELS}", CHANNELS
    if transfer.compression:
        options = f"--transfer multifd {options}"
    policy = "multifd" if parallel else "plain"
    return options, replace(transfer, policy=policy, compression=None, cache=0, parallel=parallel, codec=codec)


def _power_of_two(number: int) -> int:
    return 1 << number.bit_length() - 1 if number else 0


def fitted(transfer: TransferPlan, memory: int) -> TransferPlan:
    """The same with no more room for copies than a guest with so many bytes of memory has pages."""
    most = -(-memory // MIB)
    return replace(
        transfer,
        delta_memory=min(transfer.delta_memory, most),
        cache=min(transfer.cache, _power_of_two(most)),
    )


def about_stalling(transfer: TransferPlan) -> Iterator[Finding]:
    """What is done when the copy stalls, where anything may be."""
    if transfer.when_stalled:
        actions = ", then ".join(map(_done, transfer.when_stalled))
        yield info("when-stalled", f"If the copy stalls: {actions}; it may take {transfer.deadline_s:.0f} s in all")


def _done(action: Action) -> str:
    match action:
        case Throttle():
            return "QEMU slows the guest down (from the start)"
        case Pause(most_ms):
            return f"a pause of up to {most_ms / 1000:g} s"
        case Abort():
            return "it is undone"


def missing_methods(facts: Facts, policy: str) -> Iterator[Finding]:
    """What these hosts cannot do that the policy needs."""
    method = METHODS[policy]
    for host, qemu in ((facts.source, facts.source_qemu), (facts.destination, facts.destination_qemu)):
        if isinstance(qemu, str):
            yield warning("method-unknown", f"Whether QEMU on {host.name} can migrate by {policy} is not known: {qemu}")
        elif qemu is not None and not _offers(qemu, method):
            yield error(
                "method-missing",
                f"QEMU on {host.name} offers no migration by {policy}",
                "Use --transfer plain, or a newer QEMU",
            )
        if method.multifd and method.compression and host.versions.libvirt < PASSES_COMPRESSION_ON:
            yield error(
                "libvirt-too-old",
                f"libvirt on {host.name} does not pass {policy} on to QEMU, as it does from 9.4 on",
                f"Use --transfer multifd --codec {LIKE[method.compression].value}",
            )


def _offers(qemu: QemuAbilities, method: Method) -> bool:
    if method.capability not in (None, *qemu.capabilities):
        return False
    return not method.multifd or method.compression in (None, *qemu.multifd_compression)


def missing_codecs(facts: Facts, codec: Codec) -> Iterator[Finding]:
    """What keeps these hosts from compressing so."""
    if codec is Codec.NONE:
        return
    wanted = AUTOMATIC if codec is Codec.AUTO else frozenset({codec})
    hosts = (facts.source, facts.destination)
    if wanted.intersection(*(host.codecs for host in hosts)):
        return
    package = f"{codec.traits.package} and " if codec.traits and codec.traits.package else ""
    for host in hosts:
        lacking = wanted.difference(host.codecs)
        if lacking:
            yield error(
                "codec-missing",
                f"{host.name} cannot compress with {' or '.join(sorted(lacking))}",
                f"Install {package}vferry[compression] there, or use --codec none",
            )


def missing_room(host: Inventory, free: int, transfer: TransferPlan, *, times: int = 1) -> Iterator[Finding]:
    """What keeps a host, with so many bytes free beside a guest that comes, from keeping copies of pages.

    `times`: how many times as much as they may take.
    """
    fits = free * INDEX // (INDEX + 1) // MIB // times
    if fits < transfer.delta_memory:
        yield error(
            "no-delta-memory",
            f"{host.name} has {free // MIB} MiB free, too little for {transfer.delta_memory * times} MiB of copies of "
            "pages",
            f"Use --delta-memory {fits}" if fits > 0 else "Use --delta-memory 0, which keeps none",
        )
