"""The picture and the page."""

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_sample import bare, sample, timeline, watched

from vferry.model.report import Phase, PhaseSpan, ProbeBuckets, Report, Timeline
from vferry.report.layout import coarser, place
from vferry.report.page import page, write_page
from vferry.report.picture import write_timeline

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=y>&'$x^2$"
VOID = {"meta"}


def brief() -> Timeline:
    """Phases far too short for their names, and losses in one of a long time's many buckets."""
    bounds = [0.0, 0.001, 0.002, 0.003, 600.0, 600.001, 600.002, 600.003]
    phases = [
        PhaseSpan(phase=phase, start_s=start, end_s=end)
        for phase, start, end in zip(Phase, bounds, bounds[1:], strict=False)
    ]
    lost = [0] * 6000
    lost[5999] = 1
    probes = ProbeBuckets(lost=lost, late=[0] * 6000, rtt_ms_max=[None] * 6000)
    return Timeline(phases=phases, probes=probes, rate=[(1.0, 0.0)])


REPORTS = {
    "whole": sample(),
    "nothing measured": bare(),
    "a connection watched": watched(),
    "short phases": sample(timeline=brief()),
    "hostile": sample(guest=HOSTILE, reason=HOSTILE, degraded=HOSTILE, notes=[HOSTILE]),
    "empty": sample(timeline=Timeline(), total_s=0.0),
    "no losses": sample(timeline=Timeline(probes=ProbeBuckets(lost=[0], late=[0], rtt_ms_max=[0.0]))),
}


@pytest.mark.parametrize("name", REPORTS)
def test_the_picture_is_a_picture(tmp_path: Path, name: str) -> None:
    path = tmp_path / "timeline.png"
    write_timeline(REPORTS[name], path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(data) > 15_000
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    assert (width, height) == (1690, 1040)


class Structure(HTMLParser):
    """Checks that every element is closed, and collects which there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""
        self.attributes: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", REPORTS)
def test_the_page_is_whole_and_loads_nothing(tmp_path: Path, name: str) -> None:
    write_page(REPORTS[name], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    structure = Structure(text)
    assert not structure.open
    assert not {"script", "img", "link", "iframe"} & set(structure.seen)
    assert not {name for name in structure.attributes if name in ("src", "href", "srcset") or name.startswith("on")}
    assert not re.search(r"url\(|@import", text)
    assert "prefers-color-scheme: dark" in text
    assert "nan" not in "".join(re.findall(r'[xyd1-9]="[^"]*"', text))


def test_the_page_says_what_happened() -> None:
    text = Structure(page(sample(notes=["the standby NIC is not on vhost-net"]))).text
    for part in (
        "guest1: host1 → host2",
        "98.7 ms",
        "105 ms",
        "0000:01:10.2",
        "switchover",
        "unplug the VF",
        "2.01 : 1, 58.6 MiB of QEMU's stream, by zstd in 131 blocks",
        "vhost-net",
    ):
        assert part in text
    assert "of 16,340, 1,000 a second" in text


def test_the_page_shows_a_connection_that_was_watched() -> None:
    text = Structure(page(watched())).text
    assert "TCP stall214 mswithout an echo; 3 retransmissions, survived" in text
    assert "TCP" not in Structure(page(sample())).text


def test_hostile_names_stay_text() -> None:
    text = page(REPORTS["hostile"])
    assert "<script" not in text
    assert "<img" not in text
    assert HOSTILE in Structure(text).text


def test_what_is_null_reads_not_measured() -> None:
    text = page(bare())
    assert text.count("not measured") >= 8
    assert "refused before measuring began" in text


@given(
    st.lists(st.tuples(st.floats(0, 1000), st.floats(1, 80)), max_size=8),
    st.floats(700, 2000),
)
def test_labels_never_overlap(labels: list[tuple[float, float]], high: float) -> None:
    centres = sorted(centre for centre, _ in labels)
    widths = [width for _, width in labels]
    lefts = place(centres, widths, high, 5)
    ends = [left + width for left, width in zip(lefts, widths, strict=True)]
    assert all(end <= high + 1e-6 for end in ends)
    assert all(left >= -1e-6 for left in lefts)
    assert all(left - end >= 5 - 1e-6 for end, left in zip(ends, lefts[1:], strict=False))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.none() | st.floats(0, 900))), st.integers(1, 50))
def test_coarser_buckets_lose_nothing(rows: list[tuple[int, int, float | None]], most: int) -> None:
    fine = ProbeBuckets(
        lost=[row[0] for row in rows], late=[row[1] for row in rows], rtt_ms_max=[row[2] for row in rows]
    )
    coarse = coarser(fine, most)
    assert len(coarse.lost) == len(coarse.late) == len(coarse.rtt_ms_max) <= most
    assert (sum(coarse.lost), sum(coarse.late)) == (sum(fine.lost), sum(fine.late))
    assert _max(coarse.rtt_ms_max) == _max(fine.rtt_ms_max)
    assert math.ceil(len(rows) * fine.bucket_ms / coarse.bucket_ms) == len(coarse.lost)


def _max(values: list[float | None]) -> float:
    return max((value for value in values if value is not None), default=-1.0)


def test_the_report_keeps_the_contracts_names() -> None:
    built = msgspec.to_builtins(sample())
    contract = "operation guest source destination status network_mode reason started"
    contract += " total_s pause_ms network transfer vf steps"
    assert set(contract.split()) <= set(built)
    assert {"probe_hz", "sent", "lost", "late", "longest_gap_ms", "phases"} <= set(built["network"])
    assert set(built["network"]["phases"]["to-standby"]) == {"lost", "late", "longest_gap_ms"}
    transfer = {"policy", "codec", "guest_bytes", "wire_bytes", "rounds", "cpu_s", "cpu_peak", "ratio", "stream_bytes"}
    assert transfer <= set(built["transfer"])
    assert {"phase", "name", "host", "started", "duration_ms", "outcome", "detail"} == set(built["steps"][0])
    assert {"host", "address", "mac", "vlan"} <= set(built["vf"]["before"])
    assert msgspec.json.decode(msgspec.json.encode(sample()), type=Report) == sample()
    assert built["timeline"]["probes"]["bucket_ms"] == timeline().probes.bucket_ms  # type: ignore[union-attr]
    assert msgspec.to_builtins(bare())["network"] is None
