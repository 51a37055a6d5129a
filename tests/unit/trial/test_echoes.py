"""What ping says of a path to a guest, and its host's kernel of its CPUs."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from vferry.model.problem import Problem
from vferry.trial import echoes
from vferry.trial.cpu_time import CpuTime
from vferry.trial.echoes import Busy, Ground, counted, flood, one_by_one, rate, took, trips

FLOOD = """\
PING 10.9.0.12 (10.9.0.12) 22(50) bytes of data.

--- 10.9.0.12 ping statistics ---
10164 packets transmitted, 9000 received, +2 duplicates, 11.4522% packet loss, time 5000ms
rtt min/avg/max/mdev = 2.010/12.400/80.100/3.100 ms, pipe 65, ipg/ewma 0.492/11.300 ms
"""
SINGLE = """\
PING 10.9.0.12 (10.9.0.12) 1458(1486) bytes of data.
1466 bytes from 10.9.0.12: icmp_seq=1 ttl=64 time=12.3 ms
1466 bytes from 10.9.0.12: icmp_seq=1 ttl=64 time=99.0 ms (DUP!)
1466 bytes from 10.9.0.12: icmp_seq=2 ttl=64 time=0.450 ms
1466 bytes from 10.9.0.12: icmp_seq=3 ttl=64 time=1002 ms

--- 10.9.0.12 ping statistics ---
3 packets transmitted, 3 received, +1 duplicates, 0% packet loss, time 110ms
"""
SILENT = "\n--- 10.9.0.12 ping statistics ---\n640 packets transmitted, 0 received, 100% packet loss, time 6001ms\n\n"
BEFORE = "100.00 150.00\ncpu  1000 0 500 9000 0 0 100 50 400 0\n"
AFTER = "110.00 152.00\ncpu  1500 0 900 9100 0 0 200 50 700 0\n"
"""In 10 s, 10 s of CPU time, 3 s of it the guest's."""


def test_cpu_time_is_what_was_busy_and_what_of_it_was_guests() -> None:
    assert CpuTime.of(BEFORE.splitlines()[1] + "\ncpu0 1 1 1 1 1 1 1 1 1 1\n") == pytest.approx((16.0, 4.0))


def test_what_a_host_was_busy_with_between_two_looks() -> None:
    assert Busy.of(BEFORE + AFTER) == pytest.approx((1.0, 0.3))


def test_ping_is_counted_and_timed() -> None:
    assert counted(FLOOD) == (10164, 9000, 5.0)
    assert counted(SILENT) == (640, 0, 6.001)
    assert counted("ping: sendmsg: Network is unreachable") == (0, 0, 0.0)


def test_an_answer_that_comes_twice_is_the_first_one() -> None:
    assert took(SINGLE) == [12_300_000, 450_000, 1_002_000_000]
    assert took(SILENT) == []


@pytest.mark.parametrize(("size", "payload"), [(64, "22"), (512, "470"), (1500, "1458")])
def test_sizes_are_octets_of_ethernet_and_all_is_bounded(size: int, payload: str) -> None:
    for words in (flood("10.9.0.12", size, 5.0), one_by_one("10.9.0.12", size, 5.0)):
        assert words[words.index("-s") + 1] == payload
        assert {"-c", "-w"} < set(words)
        assert words[-1] == "10.9.0.12"
    assert one_by_one("10.9.0.12", size, 5.0)[4:8] == ["-i", "0.05", "-c", "100"]


Ground_ = Callable[..., Ground]


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground_:
    """A ping that says something as it is interrupted, or at once, and a host that has looked twice by then."""
    monkeypatch.setattr(echoes, "WARM_S", 0.0)
    said, begun = tmp_path / "said", tmp_path / "begun"

    def made(text: str, *, lasts: bool = True) -> Ground:
        said.write_text(text)
        begun.unlink(missing_ok=True)
        last = f"trap 'cat {said}; exit 1' INT; touch {begun}; while :; do sleep 0.02; done"

        def as_peer(_: Sequence[str]) -> list[str]:
            return ["sh", "-c", last if lasts else f"cat {said}; touch {begun}"]

        def on_host(_: str) -> str:
            while not begun.exists():
                time.sleep(0.01)
            time.sleep(0 if lasts else 0.1)
            return BEFORE + AFTER

        return Ground(as_peer, on_host)

    return made


def test_packets_a_second_are_those_of_both_ways_and_the_cpus_not_the_guests_own(ground: Ground_) -> None:
    assert rate(ground(FLOOD), "10.9.0.12", 64, 5.0) == pytest.approx(
        {"pps": 3600, "cores": 0.7, "pps_per_core": 5143, "guest_cores": 0.3, "lost_percent": 10.82}
    )


def test_what_was_on_its_way_at_the_end_was_not_lost(ground: Ground_) -> None:
    said = FLOOD.replace("10164 packets", "9064 packets")
    assert rate(ground(said), "10.9.0.12", 64, 5.0)["lost_percent"] == 0


def test_no_answer_is_a_problem(ground: Ground_) -> None:
    with pytest.raises(Problem, match="No packets from"):
        rate(ground(SILENT), "10.9.0.12", 64, 5.0)
    with pytest.raises(Problem, match="No packets from"):
        trips(ground(SILENT, lasts=False), "10.9.0.12", 64, 5.0)


def test_a_ping_that_ends_before_its_time_is_a_problem(ground: Ground_) -> None:
    with pytest.raises(Problem, match="not for as long"):
        rate(ground(FLOOD, lasts=False), "10.9.0.12", 64, 5.0)


def test_round_trips_are_those_of_single_packets(ground: Ground_) -> None:
    assert trips(ground(SINGLE, lasts=False), "10.9.0.12", 1500, 5.0) == {
        "rtt_us_median": 12300.0,
        "rtt_us_p99": 1002000.0,
    }


def test_a_host_is_waited_for_until_it_is_quiet() -> None:
    idle = "130.00 1.00\ncpu  1600 0 900 9100 0 0 200 50 700 0\n"
    looks = [BEFORE + AFTER, AFTER + idle]
    echoes.settle(Ground(list, lambda _: looks.pop(0)))
    assert not looks
