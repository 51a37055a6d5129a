"""Reports and progress on the terminal."""

import io
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from report_sample import bare, sample, watched
from rich.console import Console

from vferry.model.compression import CodecShare
from vferry.model.report import Phase, Report, Stall, Status, Transfer, Vf
from vferry.report import words
from vferry.report.copy_figures import CopyFigures
from vferry.report.page import page
from vferry.report.progress import Progress
from vferry.report.text import print_report


def printed(report: Report, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    print_report(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_report_says_what_happened() -> None:
    text = printed(sample())
    for part in (
        "guest1 host1 → host2: completed",
        "58 of 16,340 probes",
        "98.7 ms",
        "16.3 s",
        "105 ms",
        "0000:01:10.0 on host1",
        "0000:01:10.2 on host2",
        "2.99 : 1",
        "unplug the VF",
        "2.01 : 1, 58.6 MiB of QEMU's stream, by zstd in 131 blocks",
        "1,204 taken along, 1 refused, 2 left out",
        "of 22,800 pages 7,900 empty, 1,420 as differences, 3,000 there already",
    ):
        assert part in " ".join(text.split()), "lines are folded"
    assert words.NOT_MEASURED not in text


def test_what_is_null_reads_not_measured() -> None:
    text = printed(bare())
    assert "refused before anything was changed" in text
    assert "host2 has no free VF" in text
    for label in ("total", "pause", "lost", "late", "longest gap", "transfer"):
        line = next(line for line in text.splitlines() if line.strip().startswith(label))
        assert line.split(label)[1].strip() == "not measured"
    assert "refused before measuring began" in text


def test_a_watched_connection_has_a_line() -> None:
    text = printed(watched())
    line = next(line for line in text.splitlines() if line.strip().startswith("TCP"))
    assert "longest stall 214 ms in switchover, 812 of 812 records echoed, 3 retransmissions, port 7, survived" in line
    assert words.headline(watched()).count("TCP stall 214 ms") == 1
    assert "TCP" not in printed(sample())
    assert "TCP" not in words.headline(sample())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"ended": "Connection reset by peer", "ended_s": 4.5, "ended_phase": Phase.COPY},
            "The TCP connection ended after 4.5 s in copy: Connection reset by peer.",
        ),
        ({"echoed": 811}, "The TCP connection was silent at the end."),
        ({"wrong_bytes": 1200}, "1,200 bytes of the TCP connection came back other than they were sent."),
        ({"self_stall_max_ms": 31.0}, "The TCP connection's prober stood still for up to 31.0 ms"),
    ],
)
def test_what_went_wrong_with_a_connection_is_said(changes: dict[str, object], said: str) -> None:
    assert said in printed(watched(**changes))
    assert said in page(watched(**changes)).replace("&#x27;", "'")


def transfer(**changes: object) -> Transfer:
    found = sample().transfer
    assert found is not None
    return structs.replace(found, **changes)


def test_what_was_not_compressed_has_no_line_of_it() -> None:
    plain = transfer(codec="none", ratio=None, stream_bytes=None, pages=None, codecs={})
    assert words.compression(plain) is None
    assert "compression" not in printed(sample(transfer=plain))


@pytest.mark.parametrize(
    ("sent", "before", "said"),
    [
        (None, None, None),
        (None, 96, None),
        (4252, None, "4.2 KiB sent"),
        (4252, 96, "4.2 KiB sent, 96 B estimated before"),
    ],
)
def test_the_state_that_devices_sent_is_beside_what_was_expected(
    sent: int | None, before: int | None, said: str | None
) -> None:
    report = sample(transfer=transfer(device_bytes=sent, device_bytes_estimated=before))
    for shown in (printed(report), page(report)):
        assert ("state of devices" in shown) == (said is not None)
        assert said is None or said in shown


STALLS = [
    Stall(action="throttle", round=3, after_s=4.5, throttle=20),
    Stall(action="pause", round=4, after_s=6.2, pause_ms=450),
    Stall(action="abort", round=9, after_s=20.0),
]
DONE = (
    "guest slowed by 20 % in pass 3, after 4.5 s; pause of up to 450 ms allowed in pass 4, after 6.2 s; "
    "aborted in pass 9, after 20.0 s"
)


def test_what_was_done_as_the_copy_stalled_is_told_also_of_one_that_was_undone() -> None:
    undone = Transfer(policy="plain", stalls=STALLS)
    for found in (transfer(stalls=STALLS), undone):
        report = sample(transfer=found)
        assert ("as it stalled", DONE) in words.transfer_facts(found)
        assert all(done in page(report) for done in DONE.split("; "))
        (line,) = [line for line in printed(report, 300).splitlines() if "as it stalled" in line]
        assert line.strip().endswith(DONE)
    assert "as it stalled" not in printed(sample()) + page(sample())


def test_quickassist_that_was_not_there_is_told() -> None:
    share = CodecShare(blocks=131, stream_bytes=4096, wire_bytes=2048, software_blocks=131)
    found = transfer(codec="qatzip", ratio=2.0, stream_bytes=4096, pages=None, codecs={"qatzip": share})
    assert words.compression(found) == (
        "2.00 : 1, 4.0 KiB of QEMU's stream, by qatzip in 131 blocks, 131 of them in software"
    )


def test_a_degraded_guest_has_no_vf_after() -> None:
    text = printed(sample(degraded="standby", vf=Vf(before=sample().vf.before)))
    assert "completed, degraded: standby" in text
    assert next(line for line in text.splitlines() if "VF after" in line).split()[-1] == "none"


def test_hostile_names_steer_no_terminal() -> None:
    text = printed(sample(guest="\x1b[2Jguest\x07", notes=["[bold]x[/] \x1b]0;y\x07"]))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]x[/]" in text


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_narrow_terminals_do(width: int) -> None:
    assert max(map(len, printed(sample(), width).splitlines())) <= width


@given(st.none() | st.floats(0, 1e9), st.none() | st.integers(0, 2**62))
def test_every_figure_has_a_word(value: float | None, number: int | None) -> None:
    for word in (words.milliseconds(value), words.seconds(value), words.size(number), words.count(number)):
        assert word == words.NOT_MEASURED or word[0].isdigit()


def test_without_terminal_progress_is_a_line_a_change() -> None:
    console = Console(file=io.StringIO(), width=100, highlight=False)
    with Progress("guest1", "host1", "host2", console) as progress:
        for phase in (Phase.CHECK, Phase.COPY, Phase.COPY):
            progress.phase(phase)
        for percent in (3.0, 4.0, 5.0, 12.0, 13.0, 11.0):
            progress.copy(CopyFigures(percent, rate=9e6, to_go_s=4.2, rounds=1, expected_pause_ms=80))
        for rounds in (2, 3, 4, 5, 7):
            progress.copy(CopyFigures(11.0, rounds=rounds, dirty_rate=2e6))
        progress.probe(0, 1.0)
        progress.probe(0, 2.0)
        progress.probe(58, 120.0)
        progress.finish(Status.COMPLETED)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "guest1 host1 → host2",
        "check",
        "copy",
        "copy 3 %, 8.6 MiB/s, about 4.2 s to go, pass 1, expected pause 80.0 ms",
        "copy 12 %, 8.6 MiB/s, about 4.2 s to go, pass 1, expected pause 80.0 ms",
        "copy 13 %, pass 2, guest writes 1.9 MiB/s",
        "copy 13 %, pass 4, guest writes 1.9 MiB/s",
        "network: 0 lost",
        "network: 58 lost, no answer for 120 ms",
        "completed",
    ]


def on_a_terminal(figures: CopyFigures, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    with Progress("guest1", "host1", "host2", console) as progress:
        for phase in (Phase.CHECK, Phase.TO_STANDBY, Phase.COPY):
            progress.phase(phase)
        progress.copy(figures)
        progress.probe(7, 300.0)
        shown = Console(file=io.StringIO(), width=width)
        shown.print(progress.render())
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


def test_on_a_terminal_progress_renews_itself() -> None:
    text = on_a_terminal(CopyFigures(42.0, rate=9e6), 100)
    assert "42 %  8.6 MiB/s" in text
    assert "✓  check" in text
    assert "7 lost, no answer for 300 ms" in text


COURSE = "pass 2, 180 MiB left, guest writes 19.1 MiB/s, expected pause 40.0 ms, compressed 2.4 : 1"


@pytest.mark.parametrize(
    ("width", "speed", "gone"),
    [
        (140, "95.4 MiB/s, about 5.0 s to go", ""),
        (100, "95.4 MiB/s, about 5.0 s to go", ", compressed 2.4 : 1"),
        (80, "95.4 MiB/s", ", expected pause 40.0 ms, compressed 2.4 : 1"),
        (60, "95.4 MiB/s", ", guest writes 19.1 MiB/s, expected pause 40.0 ms, compressed 2.4 : 1"),
    ],
)
def test_what_matters_least_goes_first_where_a_terminal_is_narrow(width: int, speed: str, gone: str) -> None:
    lines = on_a_terminal(CopyFigures(62.0, 1e8, 5.0, 2, 180 << 20, 2e7, 40.0, 2.4), width).splitlines()
    assert max(map(len, lines)) <= width
    at = next(number for number, line in enumerate(lines) if "62 %" in line)
    assert lines[at].rstrip().endswith(f"62 %  {speed}")
    assert lines[at + 1].strip() == COURSE.removesuffix(gone)


def test_a_phase_that_was_joined_late_began_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vferry.report.progress.time", SimpleNamespace(monotonic=lambda: 1000.0))
    progress = Progress("g", "a", "b", Console(file=io.StringIO()))
    progress.phase(Phase.COPY, 988.0)
    progress.phase(Phase.SWITCHOVER, 5000.0)
    shown = Console(file=io.StringIO(), width=100)
    shown.print(progress.render())
    assert isinstance(shown.file, io.StringIO)
    assert "copy        12.0 s" in shown.file.getvalue()
    assert "switchover  0.00 s" in shown.file.getvalue(), "the clock is another one since the machine was started anew"


@given(
    st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True), min_size=1),
    st.sampled_from(list(Status)),
)
def test_progress_never_runs_backwards(news: list[float | None], status: Status) -> None:
    progress = Progress("g", "a", "b", Console(file=io.StringIO()))
    before = -1
    for percent in news:
        progress.copy(CopyFigures(percent))
        now = progress.percent
        if now is not None:
            assert before <= now <= 99
            before = now
    progress.finish(status)
    if progress.percent is not None:
        assert (progress.percent == 100) == (status is Status.COMPLETED)
