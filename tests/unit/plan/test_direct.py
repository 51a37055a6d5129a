"""When QEMU sends the memory by itself: where that was allowed, both hosts can, and gateways would not compress."""

import pytest
from msgspec import structs

from fakes import facts as f
from vferry.model.compression import Codec
from vferry.model.host import QemuTls
from vferry.model.memory import CodecTrial, MemoryUse, Sample
from vferry.plan.facts import Severity
from vferry.plan.plan import TransferPlan
from vferry.plan.transfer import choose

TLS = QemuTls(names=("host",), authority="a")
ABLE = f.both(f.host("source", qemu_tls=TLS), f.host("destination", qemu_tls=TLS))
SLOW, FAST = 1e6, 1e12


def measured(rate: float) -> f.Change:
    """The guest's memory was looked at, by zstd of so many bytes a second, and the link is one of a gigabit."""
    use = MemoryUse(dirty_rate=0, sample=Sample(pages=1, zero_pages=0, codecs={"zstd": CodecTrial(ratio=2, rate=rate)}))
    return f.both(f.host("source", link_rate=125_000_000), lambda facts: structs.replace(facts, memory=use))


def planned(wanted: TransferPlan, *changes: f.Change) -> tuple[TransferPlan, dict[str, Severity]]:
    found = f.found(f.both(*changes), transfer=wanted)
    assert found.plan is not None
    return found.plan.transfer, {finding.code: finding.severity for finding in found.findings}


def wish(codec: Codec = Codec.NONE) -> TransferPlan:
    return choose("auto", codec, None, 64, resident=True, direct=True)


def test_what_is_not_compressed_goes_by_itself_over_channels() -> None:
    transfer, said = planned(wish(), ABLE)
    assert (transfer.direct, transfer.policy, transfer.parallel, transfer.codec) == (True, "multifd", 2, Codec.NONE)
    assert said["direct"] is Severity.INFO
    assert "not-direct" not in said


@pytest.mark.parametrize(("rate", "direct"), [(SLOW, True), (FAST, False)])
def test_automatic_compression_is_left_out_where_it_would_gain_nothing(rate: float, direct: bool) -> None:  # noqa: FBT001
    transfer, said = planned(wish(Codec.AUTO), ABLE, measured(rate))
    assert (transfer.direct, "direct" in said, "nothing-to-gain" in said) == (direct, direct, False)
    assert transfer.codec is (Codec.NONE if direct else Codec.AUTO)
    assert (transfer.delta_memory == 0, transfer.resident) == (direct, not direct)


@pytest.mark.parametrize("able", [ABLE, f.host("source", qemu_tls=TLS)])
def test_what_was_not_measured_is_left_to_the_gateways(able: f.Change) -> None:
    transfer, said = planned(wish(Codec.AUTO), able)
    assert (transfer.direct, transfer.codec) == (False, Codec.AUTO)
    assert not {"direct", "not-direct"} & said.keys()


@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.LZ4])
def test_what_is_to_be_compressed_goes_through_them(codec: Codec) -> None:
    transfer, said = planned(wish(codec), ABLE)
    assert (transfer.direct, transfer.codec) == (False, codec)
    assert not {"direct", "not-direct"} & said.keys()


def test_nothing_is_said_where_nobody_asked() -> None:
    transfer, said = planned(choose("auto", Codec.NONE, None, 0))
    assert (transfer.direct, transfer.policy) == (False, "plain")
    assert not {"direct", "not-direct"} & said.keys()


@pytest.mark.parametrize(
    ("source", "destination", "why"),
    [
        (None, TLS, "the agent of host1 is of a version"),
        (TLS, None, "the agent of host2 is of a version"),
        (TLS, QemuTls(lacks="there is no file"), "on host2, there is no file"),
        (TLS, QemuTls(names=("x",), authority="b"), "are of two authorities"),
    ],
)
def test_hosts_that_cannot_have_it_go_through_the_gateways(
    source: QemuTls | None, destination: QemuTls | None, why: str
) -> None:
    change = f.both(f.host("source", qemu_tls=source), f.host("destination", qemu_tls=destination))
    found = f.found(change, transfer=wish())
    assert found.plan is not None
    assert not found.plan.transfer.direct
    (said,) = [finding for finding in found.findings if finding.code == "not-direct"]
    assert said.severity is Severity.WARNING
    assert why in said.message
    assert "certify-qemu" in said.remedy
