"""Estimates: the arithmetic, and what is said of it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fakes import facts as f
from vferry.model.compression import Codec
from vferry.model.guest import StateSize
from vferry.model.memory import CodecTrial, MemoryUse, Sample
from vferry.plan.estimate import estimate, passes
from vferry.plan.estimate_words import about, device_text, text
from vferry.plan.facts import Facts
from vferry.plan.plan import TransferPlan
from vferry.plan.schedule import Pause

MIB = 1 << 20
TRIALS = {"lz4": CodecTrial(ratio=2.0, rate=1000.0 * MIB), "zstd": CodecTrial(ratio=4.0, rate=150.0 * MIB)}
SAMPLE = Sample(pages=1000, zero_pages=500, codecs=TRIALS)


def facts(dirty: float | None = 10.0 * MIB, link: int | None = 50 * MIB, sample: Sample | None = SAMPLE) -> Facts:
    """A guest of 1,024 MiB, on a host of 32 processors."""
    made = f.sample()
    return replace(
        made,
        guest=replace(made.guest, memory=1024 * MIB),
        source=replace(made.source, link_rate=link, cpus=32),
        destination=replace(made.destination, cpus=32),
        memory=MemoryUse(dirty_rate=dirty, sample=sample),
    )


def plan(codec: str = "none", **more: object) -> TransferPlan:
    return TransferPlan(codec=Codec(codec), **more)  # type: ignore[arg-type]


ONE_CHANNEL = plan("lz4", policy="multifd", parallel=1)
ALLOW = "Allow a longer pause (--max-pause) or a slower guest (--throttle)"


def step_by_step(size: float, rate: float, dirty: float, pause_s: float) -> tuple[float, float]:
    total, left = 0.0, size
    while left > rate * pause_s:
        total, left = total + left / rate, left / rate * dirty
    return total, left / rate


@given(
    size=st.floats(1, 1e12),
    rate=st.floats(1, 1e10),
    share=st.floats(0, 0.95),
    pause_s=st.floats(0.01, 10),
)
def test_the_sum_is_that_of_the_passes(size: float, rate: float, share: float, pause_s: float) -> None:
    found, pause = passes(size, rate, rate * share, pause_s)
    assert 0 <= pause <= pause_s * 1.0001
    expected, _ = step_by_step(size, rate, rate * share, pause_s)
    # One pass more or less where what is left is just the pause's.
    assert math.isclose(found, expected, rel_tol=1e-6, abs_tol=pause_s * 1.0001)


@pytest.mark.parametrize(
    ("codec", "copy_rate", "wire_mib", "chosen"),
    [
        ("none", 50, 512, "none"),
        ("lz4", 100, 256, "lz4"),
        ("zstd", 150, 128, "zstd"),
        ("auto", 150, 128, "zstd"),
        ("deflate", 50, 512, "deflate"),
    ],
)
def test_the_slowest_part_decides(codec: str, copy_rate: int, wire_mib: int, chosen: str) -> None:
    found = estimate(facts(), plan(codec))
    assert found is not None
    assert (found.codec, found.copy_rate, found.wire_bytes) == (Codec(chosen), copy_rate * MIB, wire_mib * MIB)
    assert found.guest_bytes == 512 * MIB
    assert found.converges
    assert found.seconds is not None
    assert found.seconds >= 512 / copy_rate


def test_streams_compress_side_by_side() -> None:
    found = estimate(facts(), plan("zstd", parallel=2))
    assert found is not None
    assert found.copy_rate == 200 * MIB  # the link's, with zstd


@pytest.mark.parametrize(
    ("cpus", "shares", "wanted", "cores"),
    [
        ((32, 32), (0.5, 0.5), plan("zstd", parallel=8), 8),
        ((2, 2), (0.5, 0.5), plan("zstd", parallel=8), 1),
        ((1, 32), (0.1, 0.5), plan("zstd", parallel=8), 1),
        ((32, 3), (0.5, 0.5), plan("zstd", streams=8), 1.5),
        ((8, 8), (1.0, 0.25), plan("zstd", streams=8), 2),
        ((8, 8), (0.5, 0.5), plan("zstd"), 1),
        # These threads are QEMU's, which are in no slice of the gateways'.
        ((4, 32), (0.5, 0.5), plan(compression="zstd", policy="multifd-zstd", parallel=8), 4),
    ],
)
def test_no_more_cores_compress_than_the_gateways_of_either_host_may_have(
    cpus: tuple[int, int], shares: tuple[float, float], wanted: TransferPlan, cores: float
) -> None:
    known = facts(dirty=float(cores * 150 * MIB), link=10_000 * MIB)
    source, destination = (
        replace(host, cpus=number, cpu_share=share)
        for host, number, share in zip((known.source, known.destination), cpus, shares, strict=True)
    )
    found = estimate(replace(known, source=source, destination=destination), wanted)
    assert found is not None
    assert (found.copy_rate, found.converges) == (cores * 150 * MIB, False)


def test_on_a_fast_link_automatic_leaves_the_codec_that_is_too_slow() -> None:
    found = estimate(facts(link=400 * MIB), plan("auto"))
    assert found is not None
    assert found.codec is Codec.LZ4


@pytest.mark.parametrize(
    ("link", "codec", "sample", "told"),
    [
        (2000, "auto", SAMPLE, True),
        (400, "auto", SAMPLE, False),
        (2000, "none", SAMPLE, False),
        (2000, "auto", None, False),
        (2000, "auto", Sample(pages=1, zero_pages=1), False),
    ],
)
def test_that_automatic_would_compress_nothing_is_said_before(
    link: int,
    codec: str,
    sample: Sample | None,
    told: bool,  # noqa: FBT001
) -> None:
    known = facts(link=link * MIB, sample=sample)
    wanted = plan(codec)
    found = estimate(known, wanted)
    assert found is not None
    said = [finding for finding in about(known, wanted, found) if finding.code == "nothing-to-gain"]
    assert bool(said) == told
    assert not told or "gains nothing on a link of 2097 MB/s" in said[0].message


def test_a_limit_is_on_what_qemu_sends() -> None:
    found = estimate(facts(link=None), plan("zstd", bandwidth=20 * MIB))
    assert found is not None
    assert found.copy_rate == 20 * MIB
    assert found.converges


def test_what_qemu_compresses_itself_is_limited_after_that() -> None:
    found = estimate(facts(link=None), plan(compression="zstd", policy="multifd-zstd", parallel=2, bandwidth=20 * MIB))
    assert found is not None
    assert (found.codec, found.copy_rate) == (Codec.ZSTD, 80 * MIB)


def test_a_limit_of_the_source_counts() -> None:
    known = facts()
    endpoint = replace(known.source.migration, bandwidth=5 * MIB)
    found = estimate(replace(known, source=replace(known.source, migration=endpoint)), plan(bandwidth=20 * MIB))
    assert found is not None
    assert found.copy_rate == 5 * MIB


@pytest.mark.parametrize("missing", ["memory", "link", "dirty", "sample"])
def test_what_is_not_known_is_not_made_up(missing: str) -> None:
    known = {
        "memory": replace(facts(), memory=None),
        "link": facts(link=None),
        "dirty": facts(dirty=None),
        "sample": facts(sample=None),
    }[missing]
    found = estimate(known, plan("zstd"))
    if missing == "memory":
        assert found is None
        return
    assert found is not None
    assert (found.seconds is None) == (missing != "sample")
    assert (found.converges is None) == (missing != "sample")
    if missing == "sample":
        assert found.guest_bytes == found.wire_bytes == 1024 * MIB
    assert text(found)


@pytest.mark.parametrize(
    ("dirty", "wanted", "code", "remedy"),
    [
        (10, plan(), None, ""),
        (60, plan(), "will-not-converge", "Use --codec zstd --streams 2, with which it is expected to end"),
        (180, plan(), "will-not-converge", "Use --codec zstd --streams 2, with which it is expected to end"),
        (120, ONE_CHANNEL, "will-not-converge", "Use --codec zstd, with which it is expected to end"),
        (180, ONE_CHANNEL, "will-not-converge", ALLOW),
        (180, plan("lz4"), "will-not-converge", ALLOW),
        (180, plan("lz4", streams=2), "will-not-converge", "Use --codec zstd, with which it is expected to end"),
        (
            180,
            plan(compression="zlib", policy="multifd-zlib", parallel=2),
            "will-not-converge",
            "Use --transfer multifd --codec zstd, with which it is expected to end",
        ),
        (400, plan("zstd"), "will-not-converge", ALLOW),
        (30, plan(bandwidth=20 * MIB), "will-not-converge", f"{ALLOW}, or raise --bandwidth"),
        (10, plan(deadline_s=5.0), "past-deadline", "Give more time with --deadline"),
    ],
)
def test_what_will_not_end_is_said_before(dirty: int, wanted: TransferPlan, code: str | None, remedy: str) -> None:
    known = facts(dirty=float(dirty * MIB))
    found = estimate(known, wanted)
    assert found is not None
    first, *rest = about(known, wanted, found)
    assert first.code == "estimate"
    assert [finding.code for finding in rest] == ([code] if code else [])
    assert [finding.remedy for finding in rest] == ([remedy] if code else [])


SECOND = 50 * MIB
"""Bytes that the link takes in a second."""


@pytest.mark.parametrize(
    ("state", "wanted", "converges", "memory_ms", "device_ms"),
    [
        (None, plan(), True, 82, None),
        (StateSize(bytes=96), plan(), True, 82, 0),
        # It leaves 50 ms of the 300 to memory, which takes a pass more.
        (StateSize(bytes=SECOND // 4), plan(), True, 16, 250),
        (StateSize(bytes=SECOND // 4, precopy=True), plan(), True, 16, 250),
        (StateSize(bytes=SECOND), plan(when_stalled=(Pause(1050),)), True, 16, 1000),
        (StateSize(bytes=SECOND), plan(when_stalled=(Pause(5000),)), True, 82, 1000),
        # With zstd QEMU sees 150 MiB/s, and the state goes as it is.
        (StateSize(bytes=SECOND // 2), plan("zstd"), True, None, 500),
        # A limit of QEMU's makes it stop later, and does not hold in the pause.
        (StateSize(bytes=SECOND // 5), plan(bandwidth=40 * MIB), True, None, 200),
        (StateSize(bytes=SECOND), plan(), False, None, 1000),
        (StateSize(bytes=SECOND, precopy=True), plan(), None, None, 1000),
        (StateSize(bytes=SECOND // 5), plan(bandwidth=20 * MIB), False, None, 200),
    ],
)
def test_the_state_of_devices_takes_its_part_of_the_pause(
    state: StateSize | None,
    wanted: TransferPlan,
    converges: bool | None,  # noqa: FBT001
    memory_ms: int | None,
    device_ms: int | None,
) -> None:
    found = estimate(facts(), wanted, state)
    assert found is not None
    assert (found.converges, found.device_state) == (converges, state)
    assert found.device_ms == (None if device_ms is None else pytest.approx(device_ms, abs=0.01))
    assert (found.pause_ms is None) == (found.seconds is None) == (converges is not True)
    if memory_ms is not None:
        assert found.pause_ms == pytest.approx(memory_ms + (device_ms or 0), abs=0.5)


@pytest.mark.parametrize("known", [facts(link=None), facts(dirty=None), facts(link=None, dirty=None)])
def test_the_state_of_devices_where_the_rest_is_not_known(known: Facts) -> None:
    state = StateSize(bytes=SECOND)
    found = estimate(known, plan(), state)
    assert found is not None
    assert (found.device_state, found.device_ms) == (state, 1000 if known.source.link_rate else None)
    assert (found.converges, found.pause_ms) == (None, None)
    codes = [finding.code for finding in about(known, plan(), found)]
    assert codes == (["estimate", "too-much-device-state"] if known.source.link_rate else ["estimate"])


MAY_LAST = "and the pause may last"


@pytest.mark.parametrize(
    ("state", "wanted", "said", "remedy"),
    [
        (
            StateSize(bytes=SECOND),
            plan(),
            f"50 MiB, takes 1000 ms at 52 MB/s, {MAY_LAST} 300 ms: the copy will not end",
            "Allow a longer pause: --max-pause 2",
        ),
        (
            StateSize(bytes=29 * SECOND, precopy=True),
            plan(bandwidth=50 * MIB, when_stalled=(Pause(2000),)),
            f"at most 1450 MiB, takes 29 s at 52 MB/s, {MAY_LAST} 2000 ms: the copy may not end",
            "Allow a longer pause: --max-pause 30, or raise --bandwidth",
        ),
        (
            StateSize(bytes=30 * SECOND),
            plan(when_stalled=(Pause(30_000),)),
            f"1500 MiB, takes 30 s at 52 MB/s, {MAY_LAST} 30 s: the copy will not end",
            "Use a faster link: no pause that can be allowed would do",
        ),
    ],
)
def test_more_state_of_devices_than_fits_into_the_pause_is_said_before(
    state: StateSize, wanted: TransferPlan, said: str, remedy: str
) -> None:
    found = estimate(facts(), wanted, state)
    assert found is not None
    _, finding = about(facts(), wanted, found)
    assert (finding.code, finding.message, finding.remedy) == (
        "too-much-device-state",
        f"The state of its devices, {said}",
        remedy,
    )


LONGER = "which makes the guest's pause longer"


@pytest.mark.parametrize(
    ("state", "link", "wanted", "said"),
    [
        (None, 50 * MIB, plan(), f"{LONGER}; how much it is is not known"),
        (StateSize(bytes=96, silent=1), 50 * MIB, plan(), f"{LONGER}; how much it is is not known"),
        (StateSize(bytes=96), None, plan(), f"96 bytes, {LONGER}"),
        (StateSize(bytes=96), 50 * MIB, plan(), f"96 bytes, {LONGER} by less than a millisecond at 52 MB/s"),
        (StateSize(bytes=4252, precopy=True), None, plan(), f"at most 4.2 KiB, {LONGER}"),
        (
            StateSize(bytes=5 * MIB, precopy=True),
            None,
            plan(bandwidth=50 * MIB),
            f"at most 5 MiB, {LONGER} by about 100 ms at 52 MB/s",
        ),
    ],
)
def test_what_the_state_of_devices_does_to_the_pause(
    state: StateSize | None, link: int | None, wanted: TransferPlan, said: str
) -> None:
    assert device_text(facts(link=link), wanted, state) == said


def test_the_sentence_has_the_state_of_devices() -> None:
    found = estimate(facts(), plan("lz4"), StateSize(bytes=5 * MIB))
    assert found is not None
    assert text(found).endswith("151 ms of its pause for memory and the state of devices")


def test_the_sentence() -> None:
    found = estimate(facts(), plan("lz4"))
    assert found is not None
    assert text(found) == (
        "Estimate: 512 MiB to copy, 256 MiB with lz4, in about 6 s at 105 MB/s, the guest writes 10 MB/s, "
        "51 ms of its pause for memory"
    )
