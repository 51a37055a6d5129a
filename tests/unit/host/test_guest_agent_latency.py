"""What the script in a guest prints, what is made of it, and how it goes together with the pings."""

import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_libvirt import FakeError, FakeLibvirt
from hypothesis import given
from hypothesis import strategies as st
from test_guest_agent import Agent, b64, host

from vferry.host import guest_agent_latency
from vferry.host.api import GuestRun, MeasureGuest
from vferry.host.guest_agent_latency import MOST_LOOKS, Look, measure_guest, read_latencies, read_looks, script
from vferry.model.problem import Problem


def looks(*rows: tuple[int, int, int, int]) -> list[Look]:
    return [Look(at=at, reads=reads, ticks_ms=ticks, in_flight=flying) for at, reads, ticks, flying in rows]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param([], (), id="no disk"),
        pytest.param([(0, 5, 5, 1)], (), id="one look says nothing"),
        pytest.param([(0, 100, 900, 0), (10, 101, 902, 0), (21, 104, 903, 0)], (2.0, 0.333), id="averages"),
        pytest.param([(0, 7, 9, 0), (10, 7, 9, 0), (20, 8, 10, 0)], (1.0,), id="idle"),
        pytest.param([(0, 7, 9, 0), (10, 7, 9, 1), (20, 7, 9, 1), (30, 8, 259, 0)], (250.0,), id="a stall that ends"),
        pytest.param(
            [(0, 7, 9, 0), (10, 8, 10, 0), (20, 8, 10, 1), (130, 8, 10, 1)], (1.0, 1100.0), id="one that lasts"
        ),
        pytest.param([(0, 7, 9, 0), (10, 7, 9, 1)], (), id="only just begun"),
        pytest.param([(0, 7, 9, 0), (10, 7, 9, 1), (20, 9, 12, 1), (30, 9, 12, 1)], (1.5,), id="begun anew"),
        pytest.param([(0, 7, 4294967295, 0), (10, 8, 1, 0), (20, 9, 3, 0)], (2.0,), id="a counter that wraps"),
        pytest.param([(0, 7, 9, 0), (10, 1, 12, 0)], (), id="a counter that goes back"),
    ],
)
def test_latencies_are_of_reads_that_ended(seen: list[tuple[int, int, int, int]], expected: tuple[float, ...]) -> None:
    assert read_latencies(looks(*seen)) == expected


NUMBERS = st.integers(0, 10**9)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, st.integers(0, 9))))
def test_whatever_the_guest_counts_no_latency_is_negative(rows: list[tuple[int, int, int, int]]) -> None:
    seen = looks(*rows)
    found = read_latencies(seen)
    assert all(each >= 0 for each in found)
    assert len(found) <= len([*pairwise(seen)])


def test_looks_are_read() -> None:
    assert read_looks("guest1", GuestRun(code=0, stdout="1 2 3 4\n11 12 13 0\nend\n")) == looks(
        (1, 2, 3, 4), (11, 12, 13, 0)
    )
    assert read_looks("guest1", GuestRun(code=0)) == []


@pytest.mark.parametrize(
    "run",
    [
        GuestRun(code=2, stderr="sh: syntax error"),
        GuestRun(code=0, stdout="1 2 3 4\n"),
        GuestRun(code=0, stdout="1 2 3\nend\n"),
        GuestRun(code=0, stdout="1 2 -3 4\nend\n"),
        GuestRun(code=0, stdout="1 2 " + "9" * 5000 + " 4\nend\n"),
        GuestRun(code=0, stdout="1 2 3 4\n" * (MOST_LOOKS + 1) + "end\n"),
    ],
)
def test_what_is_no_look_is_nonsense(run: GuestRun) -> None:
    with pytest.raises(Problem) as caught:
        read_looks("guest1", run)
    assert caught.value.code == "guest-agent-nonsense"


@given(st.text())
def test_any_text_is_read_or_is_a_problem(text: str) -> None:
    try:
        assert len(read_looks("guest1", GuestRun(code=0, stdout=text))) <= MOST_LOOKS
    except Problem as problem:
        assert problem.code == "guest-agent-nonsense"  # noqa: PT017 - either is right


# --- the script ------------------------------------------------------------------------------------------

SHELLS = [["dash"], ["bash", "--posix"], ["busybox", "sh"]]


def run_script(shell: list[str], root: Path, seconds: float = 0.5) -> GuestRun:
    """The script on the disks of a folder, as the guest's agent would run it."""
    text = script(seconds).replace("sys=/sys/block dev=/dev", f"sys={root}/block dev={root}/dev")
    try:
        done = subprocess.run([*shell, "-c", text], capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        pytest.skip(f"{shell[0]} is not installed")
    return GuestRun(code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def make_disk(
    root: Path, name: str, *, stat: str = "", in_flight: str = "0 0", size: int = 8, real: bool = True
) -> None:
    folder = root / "block" / name
    folder.mkdir(parents=True)
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev" / name).write_bytes(b"\0" * 8192)
    for file, text in (("stat", stat), ("inflight", in_flight), ("size", str(size)), ("removable", "0")):
        (folder / file).write_text(f"{text}\n")
    if real:
        (folder / "device").mkdir()


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_the_script_looks_at_the_first_disk(tmp_path: Path, shell: list[str]) -> None:
    make_disk(tmp_path, "loop0", stat="9 9 9 9", real=False)
    make_disk(tmp_path, "sda", stat="8 8 8 8", size=0)
    make_disk(
        tmp_path, "vda", stat="     120        3     4567      890   1 2 3 4  0 5 6", in_flight="       1        0"
    )
    make_disk(tmp_path, "vdb", stat="7 7 7 7")
    run = run_script(shell, tmp_path)
    seen = read_looks("guest1", run)
    assert run.stderr == ""
    assert {(look.reads, look.ticks_ms, look.in_flight) for look in seen} == {(120, 890, 1)}
    assert 2 <= len(seen) <= 7
    assert seen[-1].at - seen[0].at >= 50
    # Its counters stand still while a read is in flight: that is a stall.
    stall = (seen[-1].at - seen[1].at) * 10
    assert read_latencies(seen) == ((stall,) if stall else ())


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_without_a_disk_it_says_nothing(tmp_path: Path, shell: list[str]) -> None:
    make_disk(tmp_path, "zram0", stat="9 9 9 9", real=False)
    assert run_script(shell, tmp_path) == GuestRun(code=0)


# --- together --------------------------------------------------------------------------------------------


class Measured(Agent):
    """An agent that can be pinged."""

    def __call__(self, command: dict[str, Any]) -> Any:
        if command["execute"] == "guest-ping":
            self.asked.append(command)
            return {}
        return super().__call__(command)


def test_the_agent_is_pinged_while_the_disk_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_agent_latency, "PING_S", 0.02)
    agent = Measured(2, exitcode=0, out=b64(b"1 2 3 0\n11 3 7 0\nend\n"))
    found = measure_guest(host(agent), "guest1", 0.1)
    assert found.disk_ms == (4.0,)
    assert 1 <= len(found.agent_ms) <= 6
    assert all(each >= 0 for each in found.agent_ms)
    commands = [command["execute"] for command in agent.asked]
    assert commands == ["guest-exec", *["guest-ping"] * len(found.agent_ms), *["guest-exec-status"] * 2]
    assert agent.asked[0]["arguments"]["arg"][1] == script(0.1)


def test_an_agent_that_falls_silent_is_a_problem() -> None:
    class Silent(Agent):
        def __call__(self, command: dict[str, Any]) -> Any:
            if command["execute"] == "guest-ping":
                raise FakeError(FakeLibvirt.VIR_ERR_AGENT_UNRESPONSIVE, "Guest agent is not responding")
            return super().__call__(command)

    with pytest.raises(Problem) as caught:
        measure_guest(host(Silent()), "guest1", 0.1)
    assert caught.value.code == "guest-agent-silent"


def test_a_guest_that_is_off_is_not_measured() -> None:
    with pytest.raises(Problem) as caught:
        measure_guest(host(None, live=False), "guest1", 0.1)
    assert caught.value.code == "guest-off"


@pytest.mark.parametrize("seconds", [0, -1, 5.1, 1e9])
def test_it_does_not_take_long(seconds: float) -> None:
    asked = msgspec.json.encode({"guest": "guest1", "seconds": seconds})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(asked, type=MeasureGuest)
