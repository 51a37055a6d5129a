"""The parts of a trial that need no QEMU: memory, CPU figures, the link's shape, results, what is measured."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.model.problem import Problem
from vferry.trial import bench
from vferry.trial.certificates import issue
from vferry.trial.content import MIB, PAGE, Layout, Memory, check_free, copy, fill, floor, floor_of_cold, hot, layout
from vferry.trial.link import shape
from vferry.trial.migration import Setting, how_it_ended
from vferry.trial.payload import LOAD_AT, Work, kernel
from vferry.trial.results import Case, Results
from vferry.trial.usage import Sample, busiest, taken

CASE = Case("plain", 400, 5000, 256, tls=False)


@given(st.integers(64, 65536))
def test_content_and_hot_pages_lie_in_memory_where_addresses_are_flat(memory_mib: int) -> None:
    places = layout(memory_mib)
    assert places.content_at + places.content <= places.size == memory_mib * MIB
    assert places.content_at <= places.hot_at
    assert places.hot_at + places.hot <= min(2048 * MIB, places.content_at + places.content)
    assert places.content_at >= 8 * MIB  # the guest's program is below


def test_the_layout_of_the_figures_to_beat() -> None:
    assert layout(1024) == Layout(1024 * MIB, 128 * MIB, 640 * MIB, 128 * MIB, 256 * MIB)


def test_the_program_says_where_it_wants_to_be() -> None:
    image = kernel(Work(8 * MIB, 100, 5000))
    magic, flags, checksum, *places, entry = struct.unpack_from("<8I", image)
    assert (magic + flags + checksum) % 2**32 == 0
    assert places == [LOAD_AT, LOAD_AT, LOAD_AT + len(image), LOAD_AT + len(image)]
    assert image[entry - LOAD_AT] == 0xFA  # cli


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    for name, content in {"b": b"\x7fELFb" * 1000, "a": b"\x7fELFa", "again": b"\x7fELFa", "text": b"text"}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    return tmp_path


def test_memory_is_filled_with_each_program_once_by_pages(programs: Path) -> None:
    memory, other = Memory("test", 4 * PAGE), Memory("test", 4 * PAGE)
    places = Layout(4 * PAGE, PAGE, 2 * PAGE, PAGE, PAGE)
    digest = fill(memory, places, programs)
    assert digest == fill(other, places, programs)
    content = memory.view[:]
    assert content[:PAGE] == bytes(PAGE)
    assert content[PAGE : PAGE + 6] == b"\x7fELFa\0"
    assert content[2 * PAGE : 3 * PAGE] == (b"\x7fELFb" * 1000)[:PAGE]
    assert content[3 * PAGE :] == bytes(PAGE)
    for each in (memory, other):
        each.close()


def test_content_that_would_repeat_is_refused(programs: Path) -> None:
    memory = Memory("test", 16 * PAGE)
    with pytest.raises(Problem) as caught:
        fill(memory, Layout(16 * PAGE, 0, 16 * PAGE, 0, PAGE), programs)
    assert caught.value.code == "content-short"
    memory.close()


def test_programs_may_be_taken_again_displaced(programs: Path) -> None:
    memory = Memory("test", 16 * PAGE)
    noise = bytes(range(256)) * 16
    (programs / "c").write_bytes(b"\x7fELF" + noise)
    fill(memory, Layout(16 * PAGE, 0, 8 * PAGE, 0, PAGE), programs, again=True)
    pages = [memory.view[at : at + PAGE] for at in range(0, 8 * PAGE, PAGE)]
    assert len(set(pages)) == 8
    assert not any(memory.view[8 * PAGE :])
    with pytest.raises(Problem):
        fill(memory, Layout(1 << 30, 0, 1 << 30, 0, PAGE), programs, again=True)
    memory.close()


def test_a_guest_may_use_more_of_its_memory() -> None:
    places = layout(8192, 6144)
    assert (places.content, places.content_at + places.content) == (6144 * MIB, 7168 * MIB)
    with pytest.raises(Problem, match="cannot be used"):
        layout(1024, 1000)


def test_every_page_that_differs_is_counted() -> None:
    one, other = Memory("one", 3 * MIB), Memory("other", 3 * MIB)
    one.view[:5] = b"alike"
    copy(one, other, Layout(3 * MIB, 0, MIB, 0, PAGE))
    assert one.differing(other) == 0
    for at in (0, PAGE, 2 * MIB + PAGE - 1, 3 * MIB - 1):
        one.view[at] ^= 1
    assert one.differing(other) == 4
    for each in (one, other):
        each.close()


def test_the_floor_is_what_blocks_compress_to() -> None:
    """Of what is in the memory as the migration begins: what the guest has changed by then is more."""
    memory, places = Memory("test", 4 * MIB), Layout(4 * MIB, 0, 2 * MIB, MIB, MIB)
    memory.view[MIB + 1 : MIB + 1001] = os.urandom(1000)
    cold, changed = floor_of_cold(memory, places), floor(hot(memory, places))
    assert 0 < cold < 1000 < changed < 2000
    memory.view[2 * MIB : 2 * MIB + 1000] = os.urandom(1000)
    assert floor(hot(memory, places)) == changed
    assert 1000 < floor_of_cold(memory, places) < 2000
    memory.close()


def test_more_memory_than_there_is_is_refused_before() -> None:
    check_free(MIB)
    with pytest.raises(Problem, match="This takes 1073741824 MiB of memory, and") as caught:
        check_free(1 << 50)
    assert caught.value.code == "not-enough-memory"


@pytest.mark.parametrize(
    ("mode", "rate", "mib"), [("plain", 0, 768 + 1920), ("plain", 5, 768 + 2176), ("gateway", 0, 768 + 3200)]
)
def test_what_a_bench_takes(mode: str, rate: int, mib: int) -> None:
    """A guest of 1,024 MiB has 640 of content, of which 256 change."""
    assert bench._needed(layout(1024), [Case(mode, 400, rate, 1024, tls=False)]) == mib * MIB


def test_cpu_in_total_and_in_the_busiest_second() -> None:
    used = [0.0, 0.1, 0.2, 1.2, 2.2, 2.3, 2.3, 2.3]
    samples = [Sample(nth / 2, {"source": cpu, "send": 1.0}) for nth, cpu in enumerate(used)]
    assert taken(samples) == {"source": 2.3, "send": 0.0}
    assert busiest(samples) == pytest.approx(2.0)
    assert busiest(samples[:2]) == pytest.approx(0.1)


@given(st.lists(st.tuples(st.floats(0.05, 3), st.floats(0, 2)), min_size=1, max_size=40))
def test_the_busiest_second_is_between_the_mean_and_the_most(steps: list[tuple[float, float]]) -> None:
    samples, at, cpu = [Sample(0.0, {"one": 0.0})], 0.0, 0.0
    for seconds, cores in steps:
        at, cpu = at + seconds, cpu + cores * seconds
        samples.append(Sample(at, {"one": cpu}))
    assert cpu / max(1.0, at) / 3 - 1e-6 <= busiest(samples) <= max(cores for _, cores in steps) + 1e-6


def test_a_fast_link_may_burst_for_a_millisecond() -> None:
    assert "rate 400mbit burst 262144 latency 50ms" in shape(400)
    assert "rate 10000mbit burst 1250000 " in shape(10_000)


def test_a_bench_that_was_cut_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    def migrate(setting: Setting, *_: object) -> dict[str, Any]:
        done.append(setting.rate)
        if len(done) == 3:
            raise KeyboardInterrupt
        return {"status": "completed"}

    monkeypatch.setattr(bench, "migrate", migrate)
    monkeypatch.setattr(bench, "fill", lambda *_, again: "digest")
    wanted = bench.Settings(["true"], ["plain"], [400], [0, 5000], 2, 64, tls=False, content=tmp_path, deadline=None)
    monkeypatch.setattr(bench, "_version", lambda _: "11")
    path = tmp_path / "transfer.json"
    now = bench.environment(wanted)
    with pytest.raises(KeyboardInterrupt):
        bench.measure(wanted, Results(path, Case.of), now, lambda _: None, lambda _: None)
    bench.measure(wanted, Results(path, Case.of), now, lambda _: None, lambda _: None)
    bench.measure(wanted, Results(path, Case.of), now, lambda _: None, lambda _: None)
    assert done == [0, 5000, 0, 0, 5000]
    rows = json.loads(path.read_text())["rows"]
    assert [row["rate"] for row in rows] == [0, 5000, 0, 5000]
    assert all(row["deadline_s"] == 60 for row in rows)
    assert all({"commit", "qemu", "content", "mode", "tls"} <= set(row) for row in rows)


def test_other_cases_do_not_count(tmp_path: Path) -> None:
    results = Results(tmp_path / "transfer.json", Case.of)
    results.add(CASE, {"status": "completed"})
    assert results.count(CASE, {}) == 1
    others = (CASE._replace(rate=0), CASE._replace(tls=True), CASE._replace(memory=512), CASE._replace(used=100))
    assert not any(results.count(other, {}) for other in others)
    assert "used" not in results.rows[0]
    results.add(CASE._replace(used=100), {"status": "completed"})
    assert (results.count(CASE, {}), results.count(CASE._replace(used=100), {})) == (1, 1)


def test_rows_of_another_environment_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_version", lambda qemu: qemu[0])
    monkeypatch.setattr(bench, "code", lambda: "abc1234")
    wanted = bench.Settings(["11"], ["plain"], [400], [0], 1, 64, tls=False, content=tmp_path, deadline=None)
    now, results = bench.environment(wanted), Results(tmp_path / "transfer.json", Case.of)
    results.add(CASE, {**now(CASE), "status": "completed"})
    monkeypatch.setattr(bench, "code", lambda: "def5678")
    for other in (wanted._replace(qemu=["12"]), wanted._replace(deadline=7), wanted):
        assert results.count(CASE, bench.environment(other)(CASE)) == 0
        assert results.of(bench.environment(other)) == []
    assert (results.count(CASE, now(CASE)), results.of(now)) == (1, results.rows)


def test_a_migration_is_given_up_after_four_passes() -> None:
    assert bench.deadline(None, CASE._replace(memory=1024)) == pytest.approx(85.9, abs=0.1)
    assert bench.deadline(None, CASE) == 60
    assert bench.deadline(None, CASE._replace(link=0)) == 60
    assert bench.deadline(7, CASE) == 7
    assert bench.words(CASE._replace(tls=True)) == "plain, 400 Mbit/s, 5,000 pages/s, TLS"
    assert bench.words(Case("gateway", 0, 0, 64, tls=False)) == "gateway, link not shaped, idle"


def test_qemu_that_is_not_there_is_named(tmp_path: Path) -> None:
    wanted = bench.Settings(["no-such-qemu"], ["plain"], [400], [0], 1, 64, tls=False, content=tmp_path, deadline=None)
    with pytest.raises(Problem) as caught:
        bench.environment(wanted)
    assert caught.value.code == "qemu-missing"


def test_each_side_has_its_files_under_the_names_that_qemu_wants(tmp_path: Path) -> None:
    source, destination = issue(tmp_path)
    for side, endpoint in ((source, "client"), (destination, "server")):
        folder = Path(side.qemu_object["dir"])
        assert all((folder / f"{name}.pem").exists() for name in ("ca-cert", f"{endpoint}-cert", f"{endpoint}-key"))
    assert source.qemu_parameters == {"tls-creds": "tls", "tls-hostname": "destination"}
    assert destination.gateway_options[-2:] == ["--peer", "source"]


@pytest.mark.parametrize(
    ("source", "destination", "status"),
    [
        ("completed", "completed", "completed"),
        ("completed", "active", "not converged"),
        ("active", "active", "not converged"),
        ("active", "failed", "failed"),
        ("failed", "failed", "failed"),
    ],
)
def test_a_migration_ends_as_its_two_sides_say(source: str, destination: str, status: str) -> None:
    found = how_it_ended({"status": source}, {"status": destination, "error-desc": "broken"}, 60)
    assert found["status"] == status
    assert found.get("reason") == {"completed": None, "failed": "broken", "not converged": "ended after 60 s"}[status]
