"""From probes to figures."""

import itertools
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.model.report import Phase
from vferry.probe.analysis import MS, Span, attribute, buckets, connection, gaps
from vferry.probe.record import LOST, UNSENT, ProbeRecord
from vferry.probe.tcp import TcpRecord


def record_of(rtts_ms: list[float], sent_ms: list[float] | None = None, rate: int = 1000) -> ProbeRecord:
    """A record of one probe every ms, or at the times given; an rtt below zero is kept as it is."""
    times = sent_ms if sent_ms is not None else [1000.0 * at / rate for at in range(len(rtts_ms))]
    return ProbeRecord(
        rate=rate,
        sent=array("q", [round(time * MS) for time in times]),
        rtt=array("q", [round(rtt * MS) if rtt >= 0 else round(rtt) for rtt in rtts_ms]),
    )


def spans(*bounds_s: float) -> list[Span]:
    order = list(Phase)
    return [(order[at], start, bounds_s[at + 1]) for at, start in enumerate(bounds_s[:-1])]


@st.composite
def records(draw: st.DrawFn) -> ProbeRecord:
    rtts = draw(st.lists(st.one_of(st.sampled_from([-1, -2]), st.floats(0, 1200)), max_size=80))
    steps = draw(st.lists(st.floats(0.25, 400), min_size=len(rtts), max_size=len(rtts)))
    times = [sum(steps[: at + 1]) for at in range(len(steps))]
    return record_of(rtts, times, draw(st.sampled_from([100, 1000])))


@given(records(), st.lists(st.floats(0, 30), min_size=1, max_size=8).map(sorted))
def test_the_phases_share_out_the_whole(record: ProbeRecord, starts: list[float]) -> None:
    phases = spans(*starts, starts[-1] + 1)
    network = attribute(record, phases)
    parts = network.phases.values()
    assert sum(part.lost for part in parts) == network.lost
    assert sum(part.late for part in parts) == network.late
    longest = [part.longest_gap_ms for part in parts if part.longest_gap_ms is not None]
    assert max(longest, default=None) == network.longest_gap_ms
    assert network.lost + network.late <= network.sent == len(record.sent)
    assert set(network.phases) == {phase for phase, _, _ in phases}


@given(records())
def test_gaps_lie_within_the_measurement_and_do_not_overlap(record: ProbeRecord) -> None:
    found = gaps(record)
    for one, next_one in itertools.pairwise(found):
        assert one.length >= 0
        assert one.start + one.length <= next_one.start
    if found:
        assert found[0].start == record.sent[0]


@given(records())
def test_buckets_hold_every_probe_once(record: ProbeRecord) -> None:
    end = (record.sent[-1] / 1e9 + 0.001) if record.sent else 1.0
    slots = buckets(record, 0.0, end)
    network = attribute(record, [])
    assert (sum(slots.lost), sum(slots.late)) == (network.lost, network.late)
    assert len(slots.lost) == len(slots.late) == len(slots.rtt_ms_max)


@pytest.mark.parametrize(
    ("rtts", "sent", "lost", "late", "gap"),
    [
        pytest.param([1] * 10, None, 0, 0, 1, id="all answered"),
        pytest.param([1, -1, -1, -1, 1], None, 3, 0, 4, id="three lost in a row"),
        pytest.param([1, -2, 1], None, 1, 0, 2, id="refused by the kernel"),
        pytest.param([-1] * 5, None, 5, 0, 4, id="nothing answered"),
        pytest.param([1, 1, -1, -1, -1], None, 3, 0, 2, id="silent at the end"),
        pytest.param([201, 200, 1001, 1000], None, 1, 2, 802, id="late, in time, too late, late"),
        pytest.param([5, 4, 3, 2, 1], None, 0, 0, 5, id="all arrive at once"),
        pytest.param([], None, 0, 0, None, id="nothing sent"),
        pytest.param([1, 1, 1], [0, 1, 301], 0, 0, 1, id="own stall alone"),
        pytest.param([50, 50, 50], [0, 1, 301], 0, 0, 50, id="own stall, slow network"),
        pytest.param([1, 1, -1, -1, 1], [0, 1, 301, 302, 303], 2, 0, 3, id="own stall, then two lost"),
        pytest.param([1, 1, 1], [0, 1, 16], 0, 0, 15, id="too short for a stall"),
    ],
)
def test_figures(rtts: list[float], sent: list[float] | None, lost: int, late: int, gap: float | None) -> None:
    network = attribute(record_of(rtts, sent), [])
    assert (network.lost, network.late, network.phases) == (lost, late, {})
    assert network.longest_gap_ms == (None if gap is None else pytest.approx(gap, abs=1e-6))


def test_a_gap_belongs_to_the_phase_in_which_it_began() -> None:
    rtts: list[float] = [1.0] * 100 + [LOST] * 100 + [1.0] * 100
    network = attribute(record_of(rtts), spans(0.0, 0.15, 0.3))
    check, prepare = network.phases[Phase.CHECK], network.phases[Phase.PREPARE]
    assert (check.lost, prepare.lost) == (50, 50)
    assert check.longest_gap_ms == pytest.approx(101)
    assert prepare.longest_gap_ms == pytest.approx(1)


def test_a_phase_without_a_gap_of_its_own_has_none() -> None:
    network = attribute(record_of([1.0, 1.0]), spans(0.0, 5.0, 6.0))
    assert network.phases[Phase.PREPARE].longest_gap_ms is None


def test_own_stalls_are_told() -> None:
    network = attribute(record_of([1.0, UNSENT, 1.0], [0, 1, 302]), [])
    assert network.self_stall_max_ms == pytest.approx(300)
    assert network.unsent == 1
    assert attribute(record_of([1.0, 1.0]), []).self_stall_max_ms is None


def test_a_phase_that_ran_twice_has_one_entry() -> None:
    phases = [(Phase.COPY, 0.0, 0.1), (Phase.SWITCHOVER, 0.1, 0.2), (Phase.COPY, 0.2, 0.3)]
    network = attribute(record_of([LOST] * 300), phases)
    assert {phase: part.lost for phase, part in network.phases.items()} == {
        Phase.COPY: 200,
        Phase.SWITCHOVER: 100,
    }


def tcp_record(**changes: Any) -> TcpRecord:
    fields = {"port": 7, "opened_at": 0, "sent": 90, "echoed": 88, "wrong": 3, "retransmissions": 4}
    fields |= {"stall_ns": 1500 * MS, "stall_at": 5200 * MS, "self_stall_ns": 20 * MS}
    return TcpRecord(**(fields | changes))


def test_a_connection_s_stall_and_end_belong_to_phases() -> None:
    phases = spans(5.0, 5.1, 6.0, 9.0)  # check, prepare, to-standby
    found = connection(tcp_record(ended="Connection reset by peer", ended_at=7000 * MS), phases, 5.0)
    assert (found.port, found.sent, found.echoed, found.wrong_bytes, found.retransmissions) == (7, 90, 88, 3, 4)
    assert (found.stall_ms, found.stall_phase) == (1500, Phase.PREPARE)
    assert (found.ended, found.ended_s, found.ended_phase) == ("Connection reset by peer", 2.0, Phase.TO_STANDBY)
    assert found.self_stall_max_ms is None


def test_a_connection_that_survived_has_no_end() -> None:
    found = connection(tcp_record(self_stall_ns=21 * MS), spans(6.0, 7.0), 6.0)
    assert (found.ended, found.ended_s, found.ended_phase) == (None, None, None)
    assert found.stall_phase is Phase.CHECK, "what lies before all phases belongs to the first"
    assert found.self_stall_max_ms == 21


@pytest.mark.parametrize(("record", "stall"), [(tcp_record(), 1500), (tcp_record(sent=0, stall_ns=0), None)])
def test_without_phases_a_connection_has_none(record: TcpRecord, stall: float | None) -> None:
    found = connection(record, [], 0.0)
    assert (found.stall_ms, found.stall_phase) == (stall, None)
