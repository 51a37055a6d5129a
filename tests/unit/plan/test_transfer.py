"""How the memory goes: what is chosen, what fits, and what the hosts lack for it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from fakes import facts as f
from vferry.host.api import QemuAbilities
from vferry.model.compression import MOST_DELTA_MIB, MOST_STREAMS, Codec
from vferry.plan.plan import TransferPlan
from vferry.plan.schedule import Abort, Pause, Schedule, Throttle
from vferry.plan.transfer import (
    CHANNELS,
    INDEX,
    MIB,
    about_stalling,
    choose,
    fitted,
    missing_methods,
    missing_room,
    with_codec,
)

ZSTD = TransferPlan(policy="multifd", parallel=2, codec=Codec.ZSTD, delta_memory=128)


@pytest.mark.parametrize(
    ("policy", "codec", "streams", "expected"),
    [
        ("auto", Codec.NONE, None, ("plain", 0, 1, 0)),
        ("auto", Codec.NONE, 1, ("plain", 0, 1, 0)),
        ("auto", Codec.NONE, 3, ("multifd", 3, 1, 0)),
        ("auto", Codec.ZSTD, None, ("multifd", CHANNELS, 1, 64)),
        ("auto", Codec.AUTO, 4, ("multifd", 4, 1, 64)),
        ("auto", Codec.LZ4, 1, ("multifd", 1, 1, 64)),
        ("plain", Codec.NONE, 4, ("plain", 0, 1, 0)),
        ("plain", Codec.ZSTD, None, ("plain", 0, 1, 0)),
        ("plain", Codec.ZSTD, 4, ("plain", 0, 4, 0)),
        ("multifd", Codec.NONE, None, ("multifd", CHANNELS, 1, 0)),
        ("multifd", Codec.DEFLATE, 5, ("multifd", 5, 1, 64)),
        ("multifd-zstd", Codec.NONE, 3, ("multifd-zstd", 3, 1, 0)),
        ("xbzrle", Codec.NONE, None, ("xbzrle", 0, 1, 0)),
    ],
)
def test_what_is_chosen(policy: str, codec: Codec, streams: int | None, expected: tuple[object, ...]) -> None:
    plan = choose(policy, codec, streams, 64)
    assert (plan.policy, plan.parallel, plan.streams, plan.delta_memory) == expected
    assert plan.codec is codec


@pytest.mark.parametrize(
    ("asked", "options", "like"),
    [
        (("auto", Codec.NONE, None), "--codec lz4 --streams 2", ("auto", 2)),
        (("auto", Codec.NONE, 1), "--codec lz4 --streams 2", ("auto", 2)),
        (("auto", Codec.NONE, 3), "--codec lz4", ("auto", 3)),
        (("auto", Codec.ZSTD, 1), "--codec lz4", ("auto", 1)),
        (("multifd", Codec.NONE, None), "--codec lz4", ("multifd", None)),
        (("plain", Codec.ZSTD, 4), "--codec lz4", ("plain", 4)),
        (("multifd-zlib", Codec.NONE, 3), "--transfer multifd --codec lz4", ("multifd", 3)),
        (("xbzrle", Codec.NONE, None), "--transfer multifd --codec lz4 --streams 2", ("multifd", 2)),
    ],
)
def test_the_same_with_another_codec_is_what_its_options_choose(
    asked: tuple[str, Codec, int | None], options: str, like: tuple[str, int | None]
) -> None:
    said, plan = with_codec(choose(*asked, 0, when_stalled=(Throttle(), Pause(2000))), Codec.LZ4)
    policy, streams = like
    assert said == options
    assert plan == choose(policy, Codec.LZ4, streams, 0, when_stalled=(Throttle(), Pause(2000)))


@given(
    policy=st.sampled_from(["auto", "plain", "multifd"]),
    codec=st.sampled_from(Codec),
    streams=st.none() | st.integers(1, MOST_STREAMS),
    delta=st.integers(0, MOST_DELTA_MIB),
)
def test_no_stream_is_spread_twice_and_copies_are_kept_where_pages_are_seen(
    policy: str, codec: Codec, streams: int | None, delta: int
) -> None:
    plan = choose(policy, codec, streams, delta)
    assert plan.policy in ("plain", "multifd")
    assert (plan.parallel > 0) == (plan.policy == "multifd")
    assert plan.streams == 1 or plan.parallel == 0
    assert plan.delta_memory == (delta if plan.parallel and codec is not Codec.NONE else 0)


@pytest.mark.parametrize(
    ("schedule", "downtime_ms", "most_ms", "throttle"),
    [
        ((), 300, 300, False),
        ((Throttle(), Abort()), 300, 300, True),
        ((Pause(100),), 100, 100, False),
        ((Pause(100), Pause(2000), Abort()), 100, 2000, False),
        ((Pause(1000), Pause(5000)), 300, 5000, False),
    ],
)
def test_a_schedule_says_what_the_copy_is_started_with(
    schedule: Schedule,
    downtime_ms: int,
    most_ms: int,
    throttle: bool,  # noqa: FBT001
) -> None:
    plan = choose("auto", Codec.NONE, None, 0, when_stalled=schedule)
    assert (plan.downtime_ms, plan.most_downtime_ms, plan.throttle) == (downtime_ms, most_ms, throttle)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=TransferPlan) == plan, "it is journaled"


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ((Abort(),), "it is undone"),
        ((Pause(500), Pause(5000)), "a pause of up to 0.5 s, then a pause of up to 5 s"),
        ((Throttle(), Pause(1000)), "QEMU slows the guest down (from the start), then a pause of up to 1 s"),
    ],
)
def test_what_is_done_when_the_copy_stalls_is_said_before(schedule: Schedule, said: str) -> None:
    (finding,) = about_stalling(TransferPlan(when_stalled=schedule))
    assert finding.message == f"If the copy stalls: {said}; it may take 600 s in all"
    assert [*about_stalling(TransferPlan())] == []


@given(memory=st.integers(0, 1 << 44), delta=st.integers(0, MOST_DELTA_MIB), free=st.integers(0, 1 << 44))
def test_copies_are_bounded_by_the_guest_and_by_what_is_free(memory: int, delta: int, free: int) -> None:
    plan = fitted(structs.replace(ZSTD, delta_memory=delta), memory)
    assert plan.delta_memory <= delta
    assert (plan.delta_memory - 1) * MIB < memory
    refused = list(missing_room(f.inventory("host1"), free, plan))
    assert refused or plan.delta_memory * MIB * (INDEX + 1) <= free * INDEX
    if refused:
        less = int(refused[0].remedy.split("--delta-memory ")[1].split(",")[0])
        assert not list(missing_room(f.inventory("host1"), free, structs.replace(plan, delta_memory=less)))


@pytest.mark.parametrize(
    ("codec", "source", "destination", "lacking"),
    [
        (Codec.NONE, (), (), []),
        (Codec.ZSTD, ("zstd",), ("lz4", "zstd"), []),
        (Codec.ZSTD, ("lz4",), ("zstd",), ["host1 cannot compress with zstd"]),
        (Codec.ZSTD, (), (), ["host1 cannot compress with zstd", "host2 cannot compress with zstd"]),
        (Codec.QATZIP, ("qatzip",), ("zstd",), ["host2 cannot compress with qatzip"]),
        (Codec.AUTO, ("lz4", "zstd"), ("lz4",), []),
        (Codec.AUTO, ("lz4", "zstd"), ("deflate",), ["host2 cannot compress with lz4 or zstd"]),
        (Codec.AUTO, ("lz4",), ("zstd",), ["host1 cannot compress with zstd", "host2 cannot compress with lz4"]),
    ],
)
def test_both_hosts_need_the_codec(
    codec: Codec, source: tuple[str, ...], destination: tuple[str, ...], lacking: list[str]
) -> None:
    change = f.both(f.host("source", codecs=source), f.host("destination", codecs=destination))
    assessment = f.found(change, transfer=structs.replace(ZSTD, codec=codec, delta_memory=0))
    assert [finding.message for finding in assessment.findings if finding.code == "codec-missing"] == lacking
    assert all("--codec none" in finding.remedy for finding in assessment.errors)
    assert (assessment.plan is None) == bool(lacking)


def test_a_plan_keeps_no_more_copies_than_the_guest_has_pages() -> None:
    memory = f.sample().guest.memory
    plan = f.planned(transfer=structs.replace(ZSTD, delta_memory=4096))
    assert plan.transfer == structs.replace(ZSTD, delta_memory=memory // MIB)


def test_the_destination_needs_room_for_the_guest_and_for_copies() -> None:
    guest = (256 + 256) * MIB
    for free, refused in ((guest + 131 * MIB, True), (guest + 132 * MIB, False)):
        found = f.found(f.host("destination", memory_free=free), transfer=ZSTD)
        assert ({error.code for error in found.errors} == {"no-delta-memory"}) == refused
    found = f.found(f.host("destination", memory_free=0), transfer=ZSTD)
    assert {error.code for error in found.errors} == {"no-memory"}


@pytest.mark.parametrize(
    ("policy", "compression", "cache"),
    [("multifd", None, 0), ("multifd-zlib", "zlib", 0), ("multifd-zstd", "zstd", 0), ("xbzrle", "xbzrle", 64)],
)
def test_what_qemu_compresses_no_gateway_does(policy: str, compression: str | None, cache: int) -> None:
    plan = choose(policy, Codec.ZSTD, None, 100)
    assert (plan.compression, plan.cache) == (compression, cache)
    assert (plan.codec is Codec.NONE) == (compression is not None)


@given(delta=st.integers(0, MOST_DELTA_MIB), memory=st.integers(1, 1 << 44))
def test_a_cache_is_a_power_of_two_that_fits(delta: int, memory: int) -> None:
    cache = fitted(choose("xbzrle", Codec.NONE, None, delta), memory).cache
    assert cache == 0 or cache.bit_count() == 1
    assert cache <= delta
    assert (cache - 1) * MIB < memory


ALL = QemuAbilities(capabilities=("multifd", "xbzrle"), multifd_compression=("none", "zlib", "zstd"))


@pytest.mark.parametrize(
    ("policy", "able", "offered"),
    [
        ("plain", QemuAbilities(), True),
        ("multifd", ALL, True),
        ("multifd", None, True),
        ("multifd", QemuAbilities(capabilities=("xbzrle",)), False),
        ("multifd-zstd", ALL, True),
        ("multifd-zstd", QemuAbilities(capabilities=("multifd",), multifd_compression=("none", "zlib")), False),
        ("xbzrle", ALL, True),
        ("xbzrle", QemuAbilities(capabilities=("multifd",)), False),
    ],
)
def test_a_method_is_taken_only_where_both_qemus_offer_it(
    policy: str,
    able: QemuAbilities | None,
    offered: bool,  # noqa: FBT001
) -> None:
    facts = structs.replace(f.sample(), source_qemu=ALL, destination_qemu=able)
    found = [finding.message for finding in missing_methods(facts, policy)]
    assert found == ([] if offered else [f"QEMU on host2 offers no migration by {policy}"])
